'use strict';
// A worker that serves, and sends back what it is sent. A connection that comes with a message
// it answers.

process.on('message', (message, socket) => {
  if (socket) socket.end('taken');
  process.send(message);
});

const server = require('http').createServer((request, response) => response.end(`node ${process.pid}`));
server.keepAliveTimeout = 60000; // a slow client is no failed request
server.listen(0, '127.0.0.1');
