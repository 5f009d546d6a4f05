package service_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/service"
)

var errEnough = errors.New("enough")

// follow reads a feed until n events have come.
func follow(t *testing.T, f *service.Events, since string, n int) []events.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []events.Event
	err := f.Feed(ctx, &events.FeedRequest{Since: since}, func(e events.Event) error {
		if got = append(got, e); len(got) == n {
			return errEnough
		}
		return nil
	})
	if err != errEnough {
		t.Fatalf("%v after %d of %d events", err, len(got), n)
	}
	return got
}

func TestAReaderGoesOnWhereItWas(t *testing.T) {
	f := service.NewEvents("users")
	for i := range 10 {
		f.Publish(events.Event{Type: fmt.Sprintf("t.%d", i+1)})
	}
	all := follow(t, f, "start", 10)
	for i, e := range all {
		if e.Seq != uint64(i+1) || e.Type != fmt.Sprintf("t.%d", i+1) || e.Service != "users" || e.ID == "" || e.Time.IsZero() || e.Missed != 0 {
			t.Errorf("event %d: %+v", i+1, e)
		}
	}
	if got := follow(t, f, string(all[6].ID), 3); got[0].Seq != 8 || got[0].Missed != 0 {
		t.Errorf("after event 7: %+v", got)
	}
	f.Publish(events.Event{Type: "t.11", Missed: 5})
	if got := follow(t, f, string(all[9].ID), 1); got[0].Seq != 11 || got[0].Missed != 5 {
		t.Errorf("what the publisher missed: %+v", got)
	}
}

func TestOnlyNewEventsComeWithoutAPosition(t *testing.T) {
	f := service.NewEvents("users")
	f.Publish(events.Event{Type: "old.one"})
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan events.Event, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- f.Feed(ctx, &events.FeedRequest{}, func(e events.Event) error { got <- e; return nil })
	}()
	// It is not known when the reader has begun: publish until it hears.
	for heard := false; !heard; {
		f.Publish(events.Event{Type: "new.one"})
		select {
		case e := <-got:
			if e.Type != "new.one" {
				t.Errorf("got %+v", e)
			}
			heard = true
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v", err)
	}
}

func TestWhoLagsTooFarIsToldHowMuchIsMissing(t *testing.T) {
	const memory = 1000
	f := service.NewEvents("users")
	f.Publish(events.Event{})
	seen, resume := make(chan struct{}), make(chan struct{})
	var got []events.Event
	ended := make(chan error, 1)
	go func() {
		ended <- f.Feed(t.Context(), &events.FeedRequest{Since: "start"}, func(e events.Event) error {
			if e.Seq == 1 {
				close(seen)
				<-resume
			}
			if got = append(got, e); e.Seq == 1+memory+300 {
				return errEnough
			}
			return nil
		})
	}()
	<-seen
	for range memory + 300 {
		f.Publish(events.Event{})
	}
	close(resume)
	if err := <-ended; err != errEnough {
		t.Fatal(err)
	}
	if len(got) != 1+memory || got[1].Missed != 300 || got[1].Seq != 302 || got[2].Missed != 0 {
		t.Errorf("%d events, the second is %+v", len(got), got[1])
	}
	// Somebody who comes anew has missed nothing: it never asked.
	if got := follow(t, f, "evt_of_an_earlier_run", memory); got[0].Seq != 302 || got[0].Missed != 0 {
		t.Errorf("first event for a newcomer: %+v", got[0])
	}
}

// TestReadersAndWritersAtOnce reads with random breaks and checks that nothing
// is lost in silence, told twice or out of order.
func TestReadersAndWritersAtOnce(t *testing.T) {
	const writers, each, readers = 4, 2000, 6
	f := service.NewEvents("users")
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(rand.Uint64(), 1))
			var last events.Event
			since := "start"
			for last.Seq < writers*each {
				var batch []events.Event
				n := 1 + r.IntN(500)
				err := f.Feed(t.Context(), &events.FeedRequest{Since: since}, func(e events.Event) error {
					batch = append(batch, e)
					if len(batch) == n || e.Seq == writers*each {
						return errEnough
					}
					return nil
				})
				if err != errEnough {
					t.Error(err)
					return
				}
				for i, e := range batch {
					// A reader that comes back too late begins anew.
					if gap := e.Seq - last.Seq - 1; e.Seq <= last.Seq || gap < e.Missed || gap > e.Missed && i > 0 {
						t.Errorf("after %d came %d, which tells of %d missed", last.Seq, e.Seq, e.Missed)
					}
					last = e
				}
				since = string(last.ID)
			}
		})
	}
	for range writers {
		wg.Go(func() {
			for range each {
				f.Publish(events.Event{Type: "x.y"})
			}
		})
	}
	wg.Wait()
}

func BenchmarkPublish(b *testing.B) {
	f := service.NewEvents("users")
	for range 1000 {
		f.Publish(events.Event{})
	}
	b.ReportAllocs()
	for b.Loop() {
		f.Publish(events.Event{Type: "session.opened", User: "alice"})
	}
}
