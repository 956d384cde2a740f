'use strict';
// An HTTP server that sends back what it gets, and which generation it is of. It
// listens on the port or the path that is its argument.
const { worker } = require('cluster');
const address = process.argv[2];
require('http').createServer((request, response) => {
	response.setHeader('Generation', process.env.GENERATION);
	// A client in a closed loop would keep a worker that drains for as long as it
	// likes: node closes connections that are idle at that moment, and no later
	// one. Before version 19 it closes none.
	if (worker.exitedAfterDisconnect) response.setHeader('Connection', 'close');
	request.pipe(response);
}).listen(/^\d+$/.test(address) ? { port: +address, host: '127.0.0.1' } : address);
