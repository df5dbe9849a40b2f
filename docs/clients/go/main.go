// Sends a view of each user that the arguments name, and prints the recommendations that follow.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type view struct {
	Type    string `json:"type"`
	EventID string `json:"event_id"`
	UserID  string `json:"user_id"`
	TS      int64  `json:"ts"` // event time, ms since the epoch
	ItemID  string `json:"item_id"`
}

type decision struct {
	EventID string `json:"event_id"`
	Items   []struct {
		ItemID string `json:"item_id"`
	} `json:"items"`
}

func main() {
	prefix := os.Getenv("CLICKSCORE_TOPIC_PREFIX")
	servers := cmp.Or(os.Getenv("KAFKA_BOOTSTRAP_SERVERS"), "127.0.0.1:9092")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	// The client's own partitioner of keyed records is the one that workers expect: murmur2.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(servers, ",")...),
		kgo.ConsumeTopics(prefix+"recommendation-decisions"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(time.Now().UnixMilli())), // read only new decisions
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	pending := map[string]string{} // user by event id
	for _, user := range os.Args[1:] {
		event := view{"view", rand.Text(), user, time.Now().UnixMilli(), "oak-mug"} // a repeated id is counted once
		value, err := json.Marshal(event)
		if err != nil {
			log.Fatal(err)
		}
		pending[event.EventID] = user
		// The key is the user's id, so that all events of a user reach one partition.
		record := &kgo.Record{Topic: prefix + "clickstream-events", Key: []byte(user), Value: value}
		if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
			log.Fatal(err)
		}
	}

	for len(pending) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			log.Fatalf("no decision; does a worker run? %v", err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			var made decision
			if err := json.Unmarshal(record.Value, &made); err != nil {
				log.Fatal(err)
			}
			user, found := pending[made.EventID]
			if !found { // another page's decision, or a repeat
				return
			}
			delete(pending, made.EventID)
			items := make([]string, len(made.Items))
			for place, item := range made.Items {
				items[place] = item.ItemID
			}
			fmt.Printf("%s: %s\n", user, strings.Join(items, ", "))
		})
	}
}
