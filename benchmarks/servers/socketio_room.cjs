// A room server as Socket.IO's documentation has it for several nodes: with the Redis Streams adapter of the store at --store URL.
//
// A client comes into the room that its query names. A message goes to the whole room, its sender included, and is then
// acknowledged, as in the documentation's chat: `io.to(room).emit(…)`, then `callback()`. WebSocket only, no compression.
"use strict";
const http = require("node:http");
const { createAdapter } = require("@socket.io/redis-streams-adapter");
const { createClient } = require("redis");
const { Server } = require("socket.io");

const url = process.argv[process.argv.indexOf("--store") + 1];

async function main() {
  const client = createClient({ url });
  client.on("error", (error) => console.error(String(error)));
  await client.connect();
  const server = http.createServer((request, response) => response.writeHead(404).end());
  const io = new Server(server, {
    adapter: createAdapter(client),
    transports: ["websocket"],
    pingInterval: 600000,
    pingTimeout: 600000,
    serveClient: false,
  });
  io.on("connection", (socket) => {
    const { username, room } = socket.handshake.query;
    socket.join(room);
    socket.on("message", (data, callback) => {
      io.to(room).emit("message", { username, text: data.text, ts: Date.now() });
      if (typeof callback === "function") callback();
    });
  });
  server.listen({ port: 0, host: "127.0.0.1", backlog: 1024 }, () =>
    console.log(`Listening on http://127.0.0.1:${server.address().port}`));
}

process.on("SIGTERM", () => process.exit(0));
main();
