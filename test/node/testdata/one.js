'use strict';
// A server that is at its limit with one connection.
const server = require('net').createServer((socket) => {
	socket.on('error', () => {});
	socket.write('x');
});
server.maxConnections = 1;
server.listen(0, '127.0.0.1');
