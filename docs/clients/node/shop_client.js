// Sends a view of each user that the arguments name, and prints the recommendations that follow.
import { randomUUID } from "node:crypto";
import { Kafka, Partitioners, logLevel } from "kafkajs";

const { KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:9092", CLICKSCORE_TOPIC_PREFIX: prefix = "" } = process.env;
const decisions = `${prefix}recommendation-decisions`;
const users = process.argv.slice(2);

const kafka = new Kafka({ brokers: KAFKA_BOOTSTRAP_SERVERS.split(","), logLevel: logLevel.ERROR });
// The default partitioner from kafkajs 2.0 on is the one that workers expect: murmur2 of the key.
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
const consumer = kafka.consumer({ groupId: `shop-page-${randomUUID()}` });
const admin = kafka.admin();
await Promise.all([producer.connect(), consumer.connect(), admin.connect()]);

const pending = new Map(); // user by event id
let finish;
const finished = new Promise((resolve) => (finish = resolve));

await consumer.subscribe({ topic: decisions });
await consumer.run({
  eachMessage: async ({ message }) => {
    const decision = JSON.parse(message.value);
    const user = pending.get(decision.event_id);
    if (!pending.delete(decision.event_id)) return; // another page's decision, or a repeat
    console.log(`${user}: ${decision.items.map((item) => item.item_id).join(", ")}`);
    if (pending.size === 0) finish();
  },
});
for (const { partition, offset } of await admin.fetchTopicOffsetsByTimestamp(decisions, Date.now())) {
  consumer.seek({ topic: decisions, partition, offset }); // read only new decisions
}

for (const user of users) {
  const event = {
    type: "view",
    event_id: randomUUID(), // a repeated id is counted once
    user_id: user,
    ts: Date.now(), // event time, ms since the epoch
    item_id: "oak-mug",
  };
  pending.set(event.event_id, user);
  // The key is the user's id, so that all events of a user reach one partition.
  await producer.send({ topic: `${prefix}clickstream-events`, messages: [{ key: user, value: JSON.stringify(event) }] });
}

const deadline = setTimeout(() => {
  console.error("no decision; does a worker run?");
  process.exit(1);
}, 30_000);
await finished;
clearTimeout(deadline);
await Promise.all([producer.disconnect(), consumer.disconnect(), admin.disconnect()]);
