package logs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	api "vpnd/pkg/api/logs"
)

// BenchmarkNewLineToFollower has 5,000 lines a second come in through a real
// file, and measures the time from the write of each to a follower on the
// socket: of one that is sent them all, and of one that asks for one in fifty.
func BenchmarkNewLineToFollower(b *testing.B) {
	for name, query := range map[string]string{"all": "", "one_in_50": "user=alice"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				follow(b, query)
			}
		})
	}
}

func follow(b *testing.B, query string) {
	const rate, lasting = 5000, 4 * time.Second
	w := newWorld(b)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	last := "last" + strconv.FormatInt(time.Now().UnixNano(), 36)
	var took []time.Duration
	ended := make(chan error, 1)
	go func() {
		ended <- api.Follow.Follow(ctx, w.conn, &api.FollowRequest{Ask: api.Ask{Query: query}}, func(r api.Record) error {
			if r.Event == last {
				cancel()
				return nil
			}
			_, sent, _ := strings.Cut(r.Message, " at ")
			ns, err := strconv.ParseInt(sent, 10, 64)
			if err != nil {
				return err
			}
			took = append(took, time.Duration(time.Now().UnixNano()-ns))
			return nil
		})
	}()
	eventually(b, "the follower", func() bool {
		s, err := api.GetStatus.Call(ctx, w.conn, nil)
		return err == nil && s.Followers == 1
	})
	file, err := os.OpenFile(filepath.Join(w.dir, "auth.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began, sent := time.Now(), 0
	for now := range tick.C {
		passed := min(now.Sub(began), lasting)
		for ; sent < int(passed*rate/time.Second); sent++ {
			user := "bob"
			if sent%50 == 0 {
				user = "alice"
			}
			_, err := fmt.Fprintf(file, `{"level":"info","service":"auth","event":"auth.signed_in","user":%q,"session":"ses_%d","dur_ms":%d,"message":"sent at %d"}`+"\n", user, sent, sent%300, time.Now().UnixNano())
			if err != nil {
				b.Fatal(err)
			}
		}
		if passed == lasting {
			break
		}
	}
	if _, err := fmt.Fprintf(file, `{"event":%q,"user":"alice"}`+"\n", last); err != nil {
		b.Fatal(err)
	}
	if err := <-ended; err != nil || len(took) == 0 {
		b.Fatalf("%d lines came, %v", len(took), err)
	}
	w.stop()
	slices.Sort(took)
	ms := func(share float64) float64 { return took[int(share*float64(len(took)-1))].Seconds() * 1000 }
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.95), "p95-ms")
	b.ReportMetric(ms(1), "max-ms")
	b.ReportMetric(float64(len(took)), "lines")
}
