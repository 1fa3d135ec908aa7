// A worker process of graphile-worker, whichever version NODE_PATH leads to.
const { Logger, run, runMigrations } = require("graphile-worker");
const { handle, serve } = require("./clock");

const [command, kind, settings] = process.argv.slice(2);
const logger = new Logger(() => (level, message) => level === "error" && console.error(message));
const connectionString = "postgres:///";

async function main() {
  if (command === "install") {
    await runMigrations({ connectionString, logger });
    return console.log(require(`${process.env.NODE_PATH}/graphile-worker/package.json`).version);
  }
  const task = (payload, helpers) => handle(kind, [payload.n], helpers.query);
  const worker = JSON.parse(settings);
  const runner = await run({
    taskList: { [kind]: task },
    noHandleSignals: true,
    logger,
    // Up to 0.15 settings are options, later they are in a preset.
    ...(worker.concurrentJobs ? { preset: { worker: { ...worker, connectionString } } } : { ...worker, connectionString }),
  });
  serve(() => runner.stop());
}

main();
