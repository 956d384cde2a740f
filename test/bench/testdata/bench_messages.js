// Prints how many nanoseconds a worker's n messages take to its primary, for
// each n read from the standard input.
const cluster = require('cluster');

if (cluster.isMaster) {
  const worker = cluster.fork();
  let begun, left;
  worker.on('message', (m) => {
    if (m.n === undefined) throw new Error('not the message');
    if (--left === 0) console.log(String(process.hrtime.bigint() - begun));
  });
  require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
    left = Number(line);
    begun = process.hrtime.bigint();
    worker.send({ cmd: 'send', n: left });
  });
} else {
  process.on('message', (m) => {
    for (let i = 0; i < m.n; i++) process.send({ cmd: 'count', n: 1000000000 + i });
  });
}
