#!/bin/sh
# npm's websocket-driver 0.8.0 (under faye-websocket, SockJS and others) reports a close with 1012, "service restart", as
# 1002, "protocol error". It does the same with 1013 and 1014. All three are registered with IANA, and servers that restart
# or are busy send them. The driver reports the reason as it was sent. So its client takes a restart for a fault of its own.
#
# Seen: {"1001":1001,"1012":1002,"1013":1002,"1014":1002,"4001":4001}
# The same was seen in Debian 12's ruby-websocket-driver 0.6.3, libwebsockets 4.1.6 and Qt 6.4.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --ignore-scripts websocket-driver@0.8.0
cat >look.js <<'JS'
const { createHash } = require("node:crypto");
const driver = require("websocket-driver");

async function reported(code) {
  const client = driver.client("ws://localhost/");
  let sent = "";
  client.io.on("data", (data) => (sent += data));
  client.start();
  const key = /sec-websocket-key: (.*)\r\n/i.exec(sent)[1];
  const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  const head = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"];
  client.io.write(Buffer.from([...head, `Sec-WebSocket-Accept: ${accept}`, "", ""].join("\r\n")));
  const closed = new Promise((resolve) => client.on("close", (event) => resolve(event.code)));
  client.io.write(Buffer.from([0x88, 2, code >> 8, code & 255]));
  return closed;
}

(async () => {
  const found = {};
  for (const code of [1001, 1012, 1013, 1014, 4001]) found[code] = await reported(code);
  console.log(JSON.stringify(found));
})();
JS
found=$(node look.js)
echo "$found"
[ "$found" = '{"1001":1001,"1012":1002,"1013":1002,"1014":1002,"4001":4001}' ]
