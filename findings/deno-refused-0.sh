#!/bin/sh
# Deno 2.9.6 reports the close code 0 for a WebSocket whose handshake was refused. The WHATWG standard and all browsers say
# 1006 there, and 0 is no close code at all. So a client that looks for 1006 doesn't recognise a refusal.
#
# Seen: 0 ""
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --ignore-scripts deno@2.9.6
cat >look.mjs <<'JS'
import { createServer } from "node:http";

const server = createServer((_, answer) => answer.writeHead(401).end());
server.on("upgrade", (_, socket) => socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"));
server.listen(0, "127.0.0.1", () => {
  const socket = new WebSocket(`ws://127.0.0.1:${server.address().port}/`);
  socket.onerror = () => {};
  socket.onclose = ({ code, reason }) => {
    console.log(code, JSON.stringify(reason));
    server.close();
  };
});
JS
node node_modules/deno/install.cjs >/dev/null
found=$(./node_modules/.bin/deno run --quiet --allow-net=127.0.0.1 look.mjs)
echo "$found"
[ "$found" = '0 ""' ]
