package logtail_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/pkg/logtail"
)

const (
	writers   = 20
	chaosTime = 10 * time.Second
)

// writer appends lines to one file and rotates it now and then. It never does
// anything that loses lines by itself: before a file or its beginning goes away
// for good, its lines must have been seen.
type writer struct {
	t     *testing.T
	path  string
	name  string
	seen  func(line string) bool
	rng   *rand.Rand
	n     int // lines written
	first int // the first line of the file's present life
	spins int
}

func (w *writer) line(i int) string {
	return fmt.Sprintf("%s %d %s", w.name, i, strings.Repeat("x", (i*7919)%120))
}

func (w *writer) write(ctx context.Context) {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer f.Close()
	var b bytes.Buffer
	for range 1 + w.rng.IntN(60) {
		b.WriteString(w.line(w.n) + "\n")
		w.n++
		if w.rng.IntN(10) == 0 { // a torn write
			at := w.rng.IntN(b.Len())
			_, _ = f.Write(b.Next(at))
		}
	}
	if _, err := f.Write(b.Bytes()); err != nil {
		w.t.Error(err)
	}
	pause(ctx, time.Duration(w.rng.IntN(8))*time.Millisecond)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// waits until the lines [from, w.n) were seen; false when the time is over.
func (w *writer) waits(ctx context.Context, from, to int) bool {
	for i := from; i < to; {
		if w.seen(w.line(i)) {
			i++
			continue
		}
		if pause(ctx, 2*time.Millisecond); ctx.Err() != nil {
			return false
		}
	}
	return true
}

func (w *writer) rotate(ctx context.Context) {
	if w.n == w.first || !w.waits(ctx, w.first, w.first+1) {
		return
	}
	w.spins++
	old := fmt.Sprintf("%s.%d", w.path, w.spins)
	switch w.rng.IntN(3) {
	case 0:
		if err := os.Rename(w.path, old); err != nil {
			w.t.Error(err)
		}
	case 1:
		copyFile(w.t, w.path, old)
		if err := os.Truncate(w.path, 0); err != nil {
			w.t.Error(err)
		}
	case 2:
		if !w.waits(ctx, w.first, w.n) {
			return
		}
		if err := os.Remove(w.path); err != nil {
			w.t.Error(err)
		}
	}
	w.first = w.n
}

func (w *writer) run(ctx context.Context) {
	for ctx.Err() == nil {
		for range 1 + w.rng.IntN(20) {
			w.write(ctx)
		}
		w.rotate(ctx)
	}
}

// chaos runs the writers and gives back all that they wrote.
func chaos(t *testing.T, dir string, seen func(string) bool) (wrote []string) {
	ctx, cancel := context.WithTimeout(context.Background(), chaosTime)
	defer cancel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	ws := make([]*writer, writers)
	var wg sync.WaitGroup
	for i := range ws {
		name := fmt.Sprintf("w%d", i)
		w := &writer{t: t, name: name, path: filepath.Join(dir, fmt.Sprint(i%5), name+".log"), seen: seen, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		must(t, os.MkdirAll(filepath.Dir(w.path), 0o755))
		ws[i] = w
		wg.Go(func() { w.run(ctx) })
	}
	wg.Wait()
	spins := 0
	for _, w := range ws {
		spins += w.spins
		for i := range w.n {
			wrote = append(wrote, w.line(i))
		}
	}
	t.Logf("%d lines, %d rotations", len(wrote), spins)
	return wrote
}

func eachOnce(t *testing.T, wrote []string, count map[string]int) {
	t.Helper()
	bad := 0
	for _, l := range wrote {
		if n := count[l]; n != 1 {
			if bad++; bad < 10 {
				t.Errorf("%.40q came %d times", l, n)
			}
		}
	}
	if len(count) != len(wrote) || bad > 0 {
		t.Errorf("%d different lines came, %d were written, %d not once", len(count), len(wrote), bad)
	}
}

// The sink dies at random points: before, between and after the rows of a
// batch, always before the positions. Only what it kept is there afterwards.
func TestExactlyOnceOverDeaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := newKeeper()
	rng := rand.New(rand.NewPCG(1, 2))
	stop := make(chan struct{})
	ended := make(chan int)
	go func() {
		deaths := 0
		for {
			ctx, cancel := context.WithCancel(context.Background())
			calls := rng.IntN(30)
			k.mu.Lock()
			k.dead = cancel
			k.die = func(chunks int) int {
				if calls--; calls > 0 {
					return -1
				}
				return rng.IntN(chunks + 1)
			}
			select {
			case <-stop:
				k.die = nil
				k.mu.Unlock()
				cancel()
				ended <- deaths
				return
			default:
			}
			k.mu.Unlock()
			if err := logtail.Run(ctx, k.options(dir)); err != nil {
				t.Error(err)
			}
			deaths++
		}
	}()
	wrote := chaos(t, dir, func(l string) bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.safe[l]
	})
	close(stop)
	kick := time.NewTicker(10 * time.Millisecond)
	defer kick.Stop()
	deaths, extra := -1, 0
	for deaths < 0 {
		select {
		case deaths = <-ended:
		case <-kick.C:
			line := fmt.Sprintf("kick %d", extra)
			extra++
			write(t, filepath.Join(dir, "kick.log"), line+"\n")
			wrote = append(wrote, line)
		}
	}
	t.Logf("%d deaths", deaths)
	end := follow(t, k.options(dir))
	for _, l := range wrote {
		until(t, l, func() bool { return k.has(l) })
	}
	end()
	eachOnce(t, wrote, k.count)
	for _, w := range k.wrong {
		t.Error(w)
	}
}

// entry is what the child process keeps at once: lines with their positions.
type entry struct {
	Lines []string
	Files []logtail.FileID
	To    []int64
	Gone  []logtail.FileID
}

func replay(journal []byte, each func(entry)) (whole int) {
	for {
		end := bytes.IndexByte(journal[whole:], '\n')
		if end < 0 {
			return whole
		}
		var e entry
		if json.Unmarshal(journal[whole:whole+end], &e) == nil {
			each(e)
		}
		whole += end + 1
	}
}

func journalChild(dir, out string) int {
	pos := map[logtail.FileID]int64{}
	b, _ := os.ReadFile(out)
	whole := replay(b, func(e entry) {
		for i, f := range e.Files {
			pos[f] = e.To[i]
		}
		for _, f := range e.Gone {
			delete(pos, f)
		}
	})
	f, err := os.OpenFile(out, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	if err := f.Truncate(int64(whole)); err != nil { // what a kill left half written
		panic(err)
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		panic(err)
	}
	put := func(e entry) error {
		b, err := json.Marshal(e)
		if err == nil {
			_, err = f.Write(append(b, '\n'))
		}
		return err
	}
	_ = logtail.Run(context.Background(), logtail.Options{
		Dirs: []string{dir}, Positions: pos, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Sink: func(_ context.Context, chunks []logtail.Chunk) error {
			var e entry
			for _, c := range chunks {
				e.Files, e.To = append(e.Files, c.File), append(e.To, c.To)
				for _, l := range c.Lines {
					e.Lines = append(e.Lines, string(l))
				}
			}
			return put(e)
		},
		Gone: func(_ context.Context, ids []logtail.FileID) error { return put(entry{Gone: ids}) },
	})
	return 0
}

// The same with kill -9 of a real process.
func TestExactlyOnceOverKills(t *testing.T) {
	t.Parallel()
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "journal")
	write(t, out, "")
	var mu sync.Mutex
	count, read := map[string]int{}, 0
	catchUp := func() {
		f, err := os.Open(out)
		must(t, err)
		defer f.Close()
		b, err := io.ReadAll(io.NewSectionReader(f, int64(read), 1<<30))
		must(t, err)
		read += replay(b, func(e entry) {
			for _, l := range e.Lines {
				count[l]++
			}
		})
	}
	seen := func(l string) bool {
		mu.Lock()
		defer mu.Unlock()
		if count[l] == 0 {
			catchUp()
		}
		return count[l] > 0
	}
	start := func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "LOGTAIL_CHILD=journal", "LOGTAIL_DIR="+dir, "LOGTAIL_OUT="+out)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Error(err)
		}
		return cmd
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int)
	go func() {
		rng := rand.New(rand.NewPCG(3, 4))
		kills := 0
		for ; ctx.Err() == nil; kills++ {
			cmd := start()
			pause(ctx, time.Duration(20+rng.IntN(300))*time.Millisecond)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		ended <- kills
	}()
	wrote := chaos(t, dir, seen)
	cancel()
	t.Logf("%d kills", <-ended)
	last := start()
	until(t, "the rest", func() bool {
		mu.Lock()
		defer mu.Unlock()
		catchUp()
		return len(count) >= len(wrote)
	})
	_ = last.Process.Kill()
	_ = last.Wait()
	catchUp()
	eachOnce(t, wrote, count)
}
