package logs

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	api "vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
	"vpnd/pkg/rpc"
)

// countdown is a context that ends when it has been asked so often.
type countdown struct {
	context.Context
	left  atomic.Int64
	after atomic.Int64 // how often it was asked after it had ended
}

func newCountdown(t *testing.T, n int64) *countdown {
	c := &countdown{Context: t.Context()}
	c.left.Store(n)
	return c
}

func (c *countdown) Err() error {
	if c.left.Add(-1) >= 0 {
		return nil
	}
	c.after.Add(1)
	return context.Canceled
}

// TestAQuestionThatNobodyAsksAnyMoreEnds asks about many pieces that the store
// keeps, and cancels in the middle of them.
func TestAQuestionThatNobodyAsksAnyMoreEnds(t *testing.T) {
	c := newSource(t)
	const pieces = 60
	for range pieces {
		c.add(50, time.Second)
	}
	all, err := logquery.Parse("message>5 !message=7*", time.Now()) // no index knows
	if err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func(context.Context) error{
		"count": func(ctx context.Context) error { _, err := c.s.lines.Count(ctx, all, logstore.Limits{}); return err },
		"stats": func(ctx context.Context) error {
			_, _, err := c.s.lines.Stats(ctx, all, logstore.Limits{}, "user")
			return err
		},
		"histogram": func(ctx context.Context) error {
			_, err := c.s.lines.Histogram(ctx, all, logstore.Limits{}, time.Minute, "user")
			return err
		},
		"fields": func(ctx context.Context) error { _, err := c.s.lines.Fields(ctx, all, logstore.Limits{}); return err },
		"query": func(ctx context.Context) error {
			_, err := c.s.lines.Query(ctx, all, logstore.Page{}, logstore.Limits{})
			return err
		},
		"export": func(ctx context.Context) error {
			return c.s.lines.Each(ctx, all, func(logstore.Found) error { return nil })
		},
	} {
		whole := newCountdown(t, 1<<40)
		if err := ask(whole); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		asked := 1<<40 - whole.left.Load()
		if asked < pieces {
			t.Errorf("%s looks %d times whether it is still wanted", name, asked)
		}
		ctx := newCountdown(t, asked/2)
		if err := ask(ctx); !errors.Is(err, context.Canceled) || ctx.after.Load() > 8 {
			t.Errorf("%s ends with %v, and has looked %d times more, after %d of %d", name, err, ctx.after.Load(), asked/2, asked)
		}
	}
}

// TestWhoGoesAwayLeavesTheQueue has a caller wait for its turn and close the
// connection.
func TestWhoGoesAwayLeavesTheQueue(t *testing.T) {
	c := newSource(t)
	c.add(5000, time.Second)
	srv := rpc.NewServer(rpc.ServerConfig{Name: "logs", Identify: func(rpc.PeerCred) (rpc.Caller, error) { return rpc.Caller{Name: "control", Access: rpc.Internal}, nil }})
	c.s.Register(srv)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(run, l) }()
	defer func() { stop(); <-served }()
	conn := rpc.DialUnix("logs", path, rpc.Options{})
	defer conn.CloseIdle()
	until := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}

	for range maxAsking {
		leave, err := c.s.asking.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan error, 1)
	go func() { _, err := api.Count.Call(ctx, conn, &api.Ask{}); asked <- err }()
	until("the caller", func() bool { return c.s.asking.waiting.Load() == 1 })
	cancel()
	if err := <-asked; !errors.Is(err, fault.Canceled) {
		t.Errorf("the caller got %v", err)
	}
	until("the end of its question", func() bool { return c.s.asking.waiting.Load() == 0 })

	// An export whose reader has gone ends, though most of it is not sent.
	enough := errors.New("enough")
	if err := api.Export.Follow(t.Context(), conn, nil, func(api.Record) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the export ended with %v", err)
	}
	until("the end of the export", func() bool { return len(c.s.exporting.slots) == 0 })
}

func TestAQuestionHasATimeLimit(t *testing.T) {
	c := newSource(t)
	c.add(5000, time.Second)
	c.s.cfg.QueryTime = 1 // a nanosecond
	_, err := c.s.count(t.Context(), &api.Ask{Query: "nothing"})
	if f := fault.From(err); !errors.Is(err, fault.Timeout) || f.Reason != "query_time" || f.Hint == "" {
		t.Errorf("it ended with %v", err)
	}
}
