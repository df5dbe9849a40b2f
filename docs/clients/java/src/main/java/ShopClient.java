import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/** Sends a view of each user that the arguments name, and prints the recommendations that follow. */
public class ShopClient {
    static final Map<String, String> ENV = System.getenv();
    static final String PREFIX = ENV.getOrDefault("CLICKSCORE_TOPIC_PREFIX", "");
    static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] users) throws Exception {
        Map<String, Object> kafka =
                Map.of("bootstrap.servers", ENV.getOrDefault("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"));
        try (var consumer = new KafkaConsumer<>(kafka, new StringDeserializer(), new StringDeserializer());
                var producer = new KafkaProducer<>(kafka, new StringSerializer(), new StringSerializer())) {
            var partitions = consumer.partitionsFor(PREFIX + "recommendation-decisions").stream()
                    .map(part -> new TopicPartition(part.topic(), part.partition()))
                    .toList();
            consumer.assign(partitions);
            consumer.seekToEnd(partitions); // read only new decisions
            partitions.forEach(consumer::position); // the end as of now, before the first event

            var pending = new HashMap<String, String>(); // user by event id
            for (String user : users) {
                String eventId = UUID.randomUUID().toString(); // a repeated id is counted once
                Map<String, Object> event = Map.of(
                        "type", "view",
                        "event_id", eventId,
                        "user_id", user,
                        "ts", System.currentTimeMillis(), // event time, ms since the epoch
                        "item_id", "oak-mug");
                pending.put(eventId, user);
                // The key is the user's id. The client's own partitioner is the one that workers expect: murmur2.
                producer.send(new ProducerRecord<>(PREFIX + "clickstream-events", user, JSON.writeValueAsString(event)))
                        .get();
            }

            long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
            while (!pending.isEmpty()) {
                if (System.nanoTime() > deadline) throw new IllegalStateException("no decision; does a worker run?");
                for (var record : consumer.poll(Duration.ofMillis(200))) {
                    JsonNode decision = JSON.readTree(record.value());
                    String user = pending.remove(decision.get("event_id").asText()); // a repeat finds nothing here
                    if (user != null) System.out.println(user + ": " + decision.get("items").findValuesAsText("item_id"));
                }
            }
        }
    }
}
