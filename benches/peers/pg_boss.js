// A worker process of pg-boss.
const { PgBoss } = require("pg-boss");
const { handle, serve } = require("./clock");

const [command, kind, argument] = process.argv.slice(2);

async function main() {
  const settings = command === "work" ? JSON.parse(argument) : {};
  const boss = new PgBoss({ connectionString: "postgres:///", max: settings.pool ?? 4 });
  boss.on("error", console.error);
  await boss.start();
  if (command === "install") {
    for (const queue of ["empty", "write", "write_set"]) {
      await boss.createQueue(queue);
    }
    console.log(require(`${process.env.NODE_PATH}/pg-boss/package.json`).version);
  } else if (command === "fill") {
    for (let from = 0; from < Number(argument); from += 5000) {
      const length = Math.min(5000, argument - from);
      await boss.insert(kind, Array.from({ length }, (_, i) => ({ data: { n: from + i + 1 } })));
    }
  } else {
    const query = (text, values) => boss.getDb().executeSql(text, values);
    await boss.work(kind, settings.work, (jobs) => handle(kind, jobs.map((job) => job.data.n), query));
    return serve(() => boss.stop({ graceful: false }));
  }
  await boss.stop({ graceful: false });
}

main();
