package logtail_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/pkg/logtail"
)

// keeper is a sink that keeps lines the way the store does: rows know which
// file and offset they are from, positions are written after the rows.
type keeper struct {
	mu    sync.Mutex
	rows  map[logtail.FileID]int64 // rows are in up to here
	pos   map[logtail.FileID]int64
	lines []string
	count map[string]int
	named map[string][]string // lines by the name of their file
	safe  map[string]bool     // lines whose position is kept
	cut   int
	gone  []logtail.FileID
	wrong []string

	// die, when set, says how many chunks' rows to keep before the end of the
	// world; negative to live on.
	die  func(chunks int) int
	dead context.CancelFunc
	hold chan struct{} // when set, each call of the sink waits for one
}

func newKeeper() *keeper {
	return &keeper{rows: map[logtail.FileID]int64{}, pos: map[logtail.FileID]int64{}, count: map[string]int{}, safe: map[string]bool{}, named: map[string][]string{}}
}

var errDied = errors.New("died")

func (k *keeper) sink(ctx context.Context, chunks []logtail.Chunk) error {
	if k.hold != nil {
		select {
		case <-k.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	keep := -1
	if k.die != nil {
		keep = k.die(len(chunks))
	}
	for i, c := range chunks {
		if keep == i {
			k.dead()
			return errDied
		}
		k.check(c)
		for j, l := range c.Lines {
			if c.Ends[j] <= k.rows[c.File] {
				continue
			}
			s := string(l)
			k.lines = append(k.lines, s)
			k.count[s]++
			k.named[c.Path] = append(k.named[c.Path], s)
			if c.Cut[j] {
				k.cut++
			}
		}
		k.rows[c.File] = max(k.rows[c.File], c.To)
	}
	if keep >= len(chunks) {
		k.dead()
		return errDied
	}
	for _, c := range chunks {
		k.pos[c.File] = c.To
		for _, l := range c.Lines {
			k.safe[string(l)] = true
		}
	}
	return nil
}

func (k *keeper) check(c logtail.Chunk) {
	bad := func(format string, args ...any) { k.wrong = append(k.wrong, fmt.Sprintf(format, args...)) }
	if at, ok := k.pos[c.File]; ok && c.From > max(at, k.rows[c.File]) {
		bad("%v: a gap, from %d, had %d", c.File, c.From, at)
	}
	if len(c.Lines) == 0 || len(c.Lines) != len(c.Ends) || len(c.Lines) != len(c.Cut) || c.Ends[len(c.Ends)-1] != c.To {
		bad("%v: odd chunk %d-%d: %d lines, %d ends", c.File, c.From, c.To, len(c.Lines), len(c.Ends))
	}
}

func (k *keeper) forget(_ context.Context, ids []logtail.FileID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		delete(k.pos, id)
		delete(k.rows, id)
	}
	k.gone = append(k.gone, ids...)
	return nil
}

func (k *keeper) positions() map[logtail.FileID]int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.pos)
}

func (k *keeper) all() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.lines...)
}

func (k *keeper) has(line string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.count[line] > 0
}

func (k *keeper) options(dirs ...string) logtail.Options {
	return logtail.Options{
		Dirs: dirs, Positions: k.positions(), Sink: k.sink, Gone: k.forget,
		Rescan: time.Hour, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Stats: new(logtail.Stats),
	}
}

// follow runs in the background; the function it returns ends the run.
func follow(t *testing.T, opts logtail.Options) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- logtail.Run(ctx, opts) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("run: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("run did not end")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// until waits for a condition with a deadline.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		case <-tick.C:
		}
	}
}

func (k *keeper) wants(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	until(t, fmt.Sprintf("%d lines", len(want)), func() bool { got = k.all(); return len(got) >= len(want) })
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("got %.300q\nwant %.300q", got, want)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.wrong {
		t.Error(w)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
