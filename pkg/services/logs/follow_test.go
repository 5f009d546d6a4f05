package logs_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
)

var errEnough = errors.New("enough")

// TestMarksLoseNothingThatComesLate: with the marks that it began with, a reader
// misses no line of the days between, whatever its time.
func TestMarksLoseNothingThatComesLate(t *testing.T) {
	w := newWorld(t)
	line := func(ago time.Duration, event string) string {
		return fmt.Sprintf(`{"ts":%q,"event":%q}`, time.Now().Add(-ago).UTC().Format(time.RFC3339Nano), event)
	}
	follow := func(req *api.FollowRequest, n int) (got []api.Record) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := api.Follow.Follow(ctx, w.conn, req, func(r api.Record) error {
			if got = append(got, r); len(got) == n {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Fatalf("%d of %d came: %v", len(got), n, err)
		}
		return got
	}
	w.write("a.log", line(0, "old"), line(time.Second, "old"), line(24*time.Hour, "old"), line(72*time.Hour, "old"))
	w.waitFor("", 4)
	var ids []string
	for _, r := range follow(&api.FollowRequest{Marks: true}, 4) {
		if !r.Mark || r.Event != "" {
			t.Errorf("no mark: %+v", r)
		}
		ids = append(ids, r.ID)
	}
	want := map[string]bool{}
	for i, ago := range []time.Duration{0, 2 * time.Second, 24 * time.Hour, 25 * time.Hour, 48 * time.Hour, 72 * time.Hour, 240 * time.Hour} {
		event := fmt.Sprintf("new%d", i)
		want[event] = true
		w.write("a.log", line(ago, event))
	}
	w.waitFor("event=new*", int64(len(want)))
	for _, r := range follow(&api.FollowRequest{Since: strings.Join(ids, ",")}, len(want)) {
		if !want[r.Event] {
			t.Errorf("unwanted, or twice: %+v", r)
		}
		delete(want, r.Event)
	}
}

func TestFollowersGetNewLinesThatMatch(t *testing.T) {
	w := newWorld(t)
	w.write("a.log", `{"event":"old","user":"alice"}`)
	w.waitFor("", 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, ended := make(chan api.Record, 100), make(chan error, 1)
	go func() {
		ended <- api.Follow.Follow(ctx, w.conn, &api.FollowRequest{Ask: api.Ask{Query: "user=alice"}}, func(r api.Record) error { got <- r; return nil })
	}()
	eventually(t, "the follower", func() bool {
		s, err := api.GetStatus.Call(ctx, w.conn, nil)
		return err == nil && s.Followers == 1
	})
	for i := range 20 {
		w.write("a.log", fmt.Sprintf(`{"event":"new","user":"alice","i":%d}`, i), `{"event":"new","user":"bob"}`)
	}
	for i := range 20 {
		select {
		case r := <-got:
			if want := fmt.Sprintf(`{"i":%d}`, i); string(r.Fields) != want || r.User != "alice" || r.Missed != 0 {
				t.Fatalf("line %d: %+v", i, r)
			}
			found := w.query(&api.QueryRequest{Ask: api.Ask{Query: fmt.Sprintf("user=alice i=%d", i)}})
			if len(found.Items) != 1 || found.Items[0].ID != r.ID {
				t.Fatalf("line %d is %s here and %+v in the store", i, r.ID, found.Items)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("line %d does not come", i)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	eventually(t, "the end of the follower", func() bool {
		s, err := api.GetStatus.Call(t.Context(), w.conn, nil)
		return err == nil && s.Followers == 0
	})
}

// TestAFollowerThatGoesAndComesMissesNothing reads with random breaks and with
// restarts of the service, while several files are written. The times of lines
// go back and forth, over a midnight too if there is one.
func TestAFollowerThatGoesAndComesMissesNothing(t *testing.T) {
	w := newWorld(t)
	const writers, each = 4, 500
	total := writers * each
	w.write("first.log", `{"event":"first"}`)
	w.waitFor("", 1)
	since := map[string]string{} // of each day
	note := func(r api.Record) { since[r.Time.Format(time.DateOnly)] = r.ID }
	note(w.query(&api.QueryRequest{Limit: 1}).Items[0])

	var writing sync.WaitGroup
	for i := range writers {
		writing.Go(func() {
			for n := range each {
				w.write(fmt.Sprintf("w%d/w.log", i), fmt.Sprintf(`{"ts":%q,"event":"n","key":"%d.%d"}`, time.Now().UTC().Add(-rand.N(90*time.Minute)).Format(time.RFC3339Nano), i, n))
				if n%50 == 0 {
					time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond) // so that appends differ in size
				}
			}
		})
	}
	defer writing.Wait()
	seen := map[string]int{}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for breaks := 0; len(seen) < total && ctx.Err() == nil; breaks++ {
		n, limit := 0, 1+rand.IntN(200)
		err := api.Follow.Follow(ctx, w.conn, &api.FollowRequest{Ask: api.Ask{Query: "event=n"}, Since: strings.Join(slices.Sorted(maps.Values(since)), ",")}, func(r api.Record) error {
			note(r)
			seen[string(r.Fields)]++
			if r.Missed > 0 {
				t.Errorf("missed %d", r.Missed)
			}
			if n++; n == limit || len(seen) == total {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) && !errors.Is(err, fault.Unavailable) {
			t.Fatal(err)
		}
		if breaks%5 == 4 {
			w.stop()
			w.start()
		}
	}
	for key, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", key, n)
		}
	}
	if len(seen) != total {
		t.Errorf("%d of %d lines came", len(seen), total)
	}
}

func TestSoManyMayFollow(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 32 {
		wg.Go(func() { _ = api.Follow.Follow(ctx, w.conn, nil, func(api.Record) error { return nil }) })
	}
	eventually(t, "32 followers", func() bool {
		s, err := api.GetStatus.Call(t.Context(), w.conn, nil)
		return err == nil && s.Followers == 32
	})
	err := api.Follow.Follow(t.Context(), w.conn, nil, func(api.Record) error { return nil })
	if !errors.Is(err, fault.Throttled) || fault.From(err).Hint == "" {
		t.Errorf("the 33rd: %v", err)
	}
}

// TestABurstIsNotTooMuch has more lines come at once than are collected for a
// follower: it is not slow, so it gets them all.
func TestABurstIsNotTooMuch(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := map[string]int{}
	ended := make(chan error, 1)
	go func() {
		ended <- api.Follow.Follow(ctx, w.conn, nil, func(r api.Record) error {
			if seen[string(r.Fields)]++; r.Missed > 0 {
				return fmt.Errorf("missed %d", r.Missed)
			}
			if len(seen) == 30_000 {
				return errEnough
			}
			return nil
		})
	}()
	eventually(t, "the follower", func() bool {
		s, err := api.GetStatus.Call(ctx, w.conn, nil)
		return err == nil && s.Followers == 1
	})
	lines := make([]string, 10_000)
	for i := range 3 {
		for k := range lines {
			lines[k] = fmt.Sprintf(`{"event":"n","n":"%d.%d"}`, i, k)
		}
		w.write("burst.log", lines...)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, errEnough) {
			t.Fatalf("after %d lines: %v", len(seen), err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("not all lines come")
	}
	for key, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", key, n)
		}
	}
}
