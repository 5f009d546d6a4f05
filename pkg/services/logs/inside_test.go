package logs

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
	"vpnd/pkg/logtail"
)

func found(seq int, r logline.Record) logstore.Found {
	return logstore.Found{ID: logstore.ID{Time: 1, Seq: int64(seq)}, Record: r}
}

func TestASlowFollowerLosesTheOldestAndIsTold(t *testing.T) {
	h := newHub(2)
	q, err := logquery.Parse("user=alice", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f, err := h.join(q.Matcher())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * (queueLines + 300) {
		user := []string{"alice", "bob"}[i%2]
		h.publish([]logstore.Found{found(i, logline.Record{User: user})})
	}
	if lines, lost, again := h.take(f); !again || lines != nil || lost != 0 {
		t.Errorf("what the store has: %d lines, %d lost, %v", len(lines), lost, again)
	}
	if from, needed := h.again(f, patience); !needed || len(from) != 1 || from[0].seq != 0 {
		t.Errorf("to be read again: %v, %v", from, needed)
	}
	for i := range 2 * (queueLines + patience + 1) {
		user := []string{"alice", "bob"}[i%2]
		h.publish([]logstore.Found{found(i, logline.Record{User: user})})
	}
	if _, needed := h.again(f, patience); needed {
		t.Error("patience has no end")
	}
	lines, lost, again := h.take(f)
	if len(lines) != queueLines || lost != patience+1 || again || lines[0].ID.Seq != 2*(patience+1) {
		t.Errorf("%d lines from %d, %d lost, %v", len(lines), lines[0].ID.Seq, lost, again)
	}
	if lines, lost, again = h.take(f); len(lines) != 0 || lost != 0 || again {
		t.Errorf("then %d lines, %d lost, %v", len(lines), lost, again)
	}
	big := logline.Record{User: "alice", Message: string(make([]byte, queueBytes/2))}
	for i := range 5 {
		h.publish([]logstore.Found{found(i, big)})
	}
	if len(f.queue) != 1 || f.lost != 4 {
		t.Errorf("of long lines %d, %d lost", len(f.queue), f.lost)
	}
}

func TestNoMoreQuestionsThanItCanBear(t *testing.T) {
	g := newGate(1, 1, "questions")
	leave, err := g.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() {
		_, err := g.enter(ctx)
		waited <- err
	}()
	for g.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := g.enter(t.Context()); !errors.Is(err, fault.Throttled) || fault.From(err).RetryAfter == 0 {
		t.Errorf("the third: %v", err)
	}
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("one that went away: %v", err)
	}
	leave()
	if leave, err = g.enter(t.Context()); err != nil {
		t.Error(err)
	}
	leave()
	if g.waiting.Load() != 0 {
		t.Error("somebody is still waiting")
	}
}

func TestARefusalIsToldOnceAndItsEndToo(t *testing.T) {
	var told []string
	s := &Service{deps: Deps{Publish: func(e events.Event) { told = append(told, e.Type+" "+e.Reason) }}}
	full := fault.New(fault.Unavailable, "the disk is full").WithReason("disk_full").WithHint("free space")
	for range 3 {
		if err := s.refused(full); !errors.Is(err, fault.Unavailable) {
			t.Error(err)
		}
	}
	_ = s.refused(context.Canceled)
	if f := s.refuse.Load(); f == nil || f.Message != "the disk is full" {
		t.Errorf("status would say %v", f)
	}
	s.accepted()
	s.accepted()
	if len(told) != 2 || told[0] != "logs.paused disk_full" || told[1] != "logs.resumed " || s.refuse.Load() != nil {
		t.Errorf("told %q", told)
	}
}

func TestChunksBecomeBatchesOfABoundedSize(t *testing.T) {
	var sizes []int
	var ends []int64
	p := packer{now: time.Now(), keep: func(b []logstore.Batch) error {
		n := 0
		for _, x := range b {
			for i, r := range x.Rows {
				if r.Offset <= x.From || r.Offset > x.To || i > 0 && r.Offset <= x.Rows[i-1].Offset {
					t.Fatalf("row at %d of %d to %d", r.Offset, x.From, x.To)
				}
			}
			if len(ends) > 0 && x.From != ends[len(ends)-1] {
				t.Fatalf("a gap: %d after %d", x.From, ends[len(ends)-1])
			}
			ends = append(ends, x.To)
			n += len(x.Rows)
		}
		sizes = append(sizes, n)
		return nil
	}}
	c := logtail.Chunk{Path: "/var/log/vpnd/auth/auth.log", From: 0}
	for i := range 2*maxRows + 10 {
		c.Lines, c.Ends, c.Cut = append(c.Lines, []byte("x")), append(c.Ends, int64(2*i+2)), append(c.Cut, false)
	}
	c.To = c.Ends[len(c.Ends)-1] + 5 // the beginning of a line that is skipped
	if err := errors.Join(p.chunk(c), p.flush(), p.flush()); err != nil {
		t.Fatal(err)
	}
	if len(sizes) != 3 || sizes[0] != maxRows || sizes[2] != 10 || ends[len(ends)-1] != c.To {
		t.Errorf("batches of %v, up to %v", sizes, ends)
	}
	if got := serviceOf(c.Path); got != "auth" {
		t.Errorf("service %q", got)
	}
}

func TestLagIsTheAgeOfTheOldestByte(t *testing.T) {
	m := meter{files: map[string]*progress{}}
	start := time.Now()
	look := func(after time.Duration, size, kept, lines int64) logtail.FileStat {
		f := logtail.FileStat{Path: "a", Name: "a", Size: size, Kept: kept}
		m.look(start.Add(after), logtail.Snapshot{Lines: lines, Files: []logtail.FileStat{f}})
		return f
	}
	look(0, 100, 100, 10)
	look(time.Second, 200, 100, 10)
	f := look(2*time.Second, 300, 100, 20)
	if got := m.lag(start.Add(3*time.Second), f, false); got != 2000 {
		t.Errorf("lag %d", got)
	}
	f.Kept = 250
	if got := m.lag(start.Add(3*time.Second), f, false); got != 1000 {
		t.Errorf("lag of the rest %d", got)
	}
	if got := m.rate(start.Add(4*time.Second), 50); got != 10 {
		t.Errorf("rate %v", got)
	}
	m.look(start.Add(5*time.Second), logtail.Snapshot{})
	if len(m.files) != 0 {
		t.Error("a file that is gone is remembered")
	}
}

func TestFieldsAreJSONWhateverTheyHold(t *testing.T) {
	got := fields([]logline.Field{
		{Key: "a", Value: "1", Kind: logline.Number}, {Key: "a", Value: "x"}, {Key: "a~2", Value: "y"}, {Key: "a", Value: "z"},
		{Key: "q\"", Value: "\x1b[31m</script>"}, {Key: "", Value: "[1", Kind: logline.JSON},
	})
	var back map[string]any
	if err := json.Unmarshal(got, &back); err != nil || len(back) != 6 || back["a"] != 1.0 || back["a~2"] != "y" || back["a~3"] != "x" || back["a~4"] != "z" || back[""] != "[1" {
		t.Errorf("%s: %v", got, err)
	}
	if fields(nil) != nil {
		t.Error("no fields are something")
	}
}

func newConfig(dirs ...string) config.Logs {
	c := config.Default().Logs
	c.Dirs = dirs
	return c
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
