// What the Node peers have in common: handlers that note when the first began and the last ended, told on stdout while the
// process runs. It ends when its stdin is closed.
const { performance } = require("node:perf_hooks");

const now = () => (performance.timeOrigin + performance.now()) / 1000;
const noted = { jobs: 0, first: null, last: null };

// What a handler does with its jobs' numbers; `query` runs a statement by the library's own connection.
const work = {
  empty: async () => {},
  write: (numbers, query) => Promise.all(numbers.map((n) => query("insert into effect values ($1)", [n]))),
  write_set: (numbers, query) => query("insert into effect select unnest($1::int[])", [numbers]),
  start: ([n], query, at) => query("insert into started values ($1, to_timestamp($2))", [n, at]),
};

exports.handle = async (kind, numbers, query) => {
  const at = now();
  noted.first ??= at;
  await work[kind](numbers, query, at);
  noted.last = now();
  noted.jobs += numbers.length;
};

// Says that the worker runs, and has `stop` end it when the bench says so.
exports.serve = (stop) => {
  console.log("ready");
  let told = 0;
  setInterval(() => {
    if (noted.jobs !== told) {
      told = noted.jobs;
      console.log(`${noted.jobs} ${noted.first} ${noted.last}`);
    }
  }, 100);
  process.stdin.resume().on("end", async () => {
    await stop();
    process.exit(0);
  });
};
