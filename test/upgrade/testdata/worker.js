'use strict';
// A worker that serves, and sends back what it is sent: messages, and what comes on connections
// that are no HTTP any more. A connection that comes with a message it answers.

process.on('message', (message, socket) => {
  if (socket) socket.end('taken');
  process.send(message);
});

const server = require('http').createServer((request, response) => response.end(`node ${process.pid}`));
server.keepAliveTimeout = 60000; // a slow client is no failed request
server.on('upgrade', (request, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
  socket.pipe(socket);
});
server.listen(0, '127.0.0.1');
