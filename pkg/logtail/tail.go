// Package logtail follows the log files below some directories and hands every
// line on exactly once, in order, together with the position it ends at.
//
// It owns finding the files (fsnotify, and a slow rescan for whatever that
// misses), telling one file from another through renames, copy-truncate,
// deletion and reuse of inode numbers, and cutting bytes into lines. It leaves
// the meaning of a line to pkg/logline, and keeping lines and positions to the
// sink. The files are the buffer: while the sink is busy or failing, reading
// pauses and nothing is dropped.
//
// Run may be called once per set of directories; Stats may be read by anybody
// at any time.
package logtail

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"vpnd/pkg/fault"
)

// The bounds of memory. Two batches exist: one with the sink, one being filled.
const (
	MaxLine    = 1 << 20         // longer lines are cut to this many bytes
	maxBatch   = 7 << 19         // cost of one batch, so that two stay below 8 MiB
	lineCost   = 40              // what a line costs beside its bytes
	blockSize  = 256 << 10       // read at a time, so that one file cannot starve others
	scanBlock  = 64 << 10        // looked through at a time for the end of a long line
	scanStep   = 1 << 20         // looked through before other files get their turn
	maxOpen    = 1024            // descriptors kept, fewer where few are allowed
	halfQuiet  = 2 * time.Second // a rotated file's half line is over after this
	doubtTime  = 2 * time.Second // until a file that was not met is looked for again
	copyTries  = 64              // candidates looked at for the copy of a truncated file
	defaultNet = 10 * time.Second
)

// Chunk is some whole lines of one file: the bytes [From, To). Its slices are
// valid until the sink returns.
type Chunk struct {
	File     FileID
	Path     string // the name it has, or last had, as a followed file
	From, To int64
	Lines    [][]byte // without the newline, and without NULs before it: a hole
	Ends     []int64  // the offset after each line's newline
	Cut      []bool   // longer than MaxLine, the rest is not there
}

// Options say what to follow. Dirs, Sink and Log are required.
type Options struct {
	// Dirs are absolute paths, followed with everything below them. One that
	// does not exist yet is found when it does.
	Dirs []string
	// Refuse are folders never read, though they lie below Dirs.
	Refuse []string
	// Positions tell where the last run ended.
	Positions map[FileID]int64
	// Sink keeps chunks; it returns when they and their positions are kept. On an
	// error the same chunks come again, until it succeeds or the context ends.
	Sink func(context.Context, []Chunk) error
	// Gone, when set, tells of identities that will never come again, so that
	// their positions can be forgotten. Called between calls of Sink.
	Gone func(context.Context, []FileID) error
	// Rescan is the time between two looks at everything; 10 s when zero.
	Rescan time.Duration
	Log    *slog.Logger
	Stats  *Stats // filled in when set
}

func (o Options) check() (Options, error) {
	if len(o.Dirs) == 0 {
		return o, fault.InvalidField("dirs", "no directory to follow")
	}
	clean := func(field string, in []string) ([]string, error) {
		out := make([]string, 0, len(in))
		for _, d := range in {
			if !filepath.IsAbs(d) {
				return nil, fault.InvalidField(field, "%q is not an absolute path", d).WithHint("begin the path with /")
			}
			out = append(out, filepath.Clean(d))
		}
		return out, nil
	}
	var err error
	if o.Dirs, err = clean("dirs", o.Dirs); err != nil {
		return o, err
	}
	if o.Refuse, err = clean("refuse", o.Refuse); err != nil {
		return o, err
	}
	if o.Rescan <= 0 {
		o.Rescan = defaultNet
	}
	if o.Stats == nil {
		o.Stats = new(Stats)
	}
	return o, nil
}

// Run follows the files until the context ends, then returns nil. Every
// goroutine it started has ended by then.
func Run(ctx context.Context, opts Options) error {
	opts, err := opts.check()
	if err != nil {
		return err
	}
	t := newTailer(opts)
	defer t.close()
	return t.run(ctx)
}

// run is the one goroutine that owns the files; another holds the sink, a third
// collects what fsnotify says.
func (t *tailer) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.deliver(ctx)
	}()
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		t.inbox.listen(ctx)
	}()
	defer func() { cancel(); <-done; <-watching }()

	if !t.scanned {
		t.start()
	}
	net := time.NewTimer(t.netPeriod())
	defer net.Stop()
	tick := time.NewTicker(halfQuiet / 8)
	defer tick.Stop()
	for {
		var out chan<- *batch
		if !t.cur.empty() {
			out = t.out
		}
		var ready <-chan struct{}
		if t.queue.Len() > 0 && !t.blocked {
			ready = always
		}
		// A batch that can go goes first, so that a busy reader adds no delay.
		select {
		case out <- t.cur:
			t.swap()
			continue
		default:
		}
		select {
		case <-ctx.Done():
			return nil
		case out <- t.cur:
			t.swap()
		case <-t.inbox.wake:
			t.lookAt(t.inbox.take())
		case <-net.C:
			t.scan()
			t.judge()
			net.Reset(t.netPeriod())
		case <-tick.C:
			t.fade()
		case <-ready:
			t.step()
		}
	}
}

// always is ready at once.
var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// swap goes on with the other batch after one went to the sink, which takes one
// only after it gave back the one before.
func (t *tailer) swap() {
	t.cur = <-t.free
	t.opts.Stats.fill(0)
	t.setBlocked(false)
}

// netPeriod is shorter while something cannot be watched.
func (t *tailer) netPeriod() time.Duration {
	if t.inbox.watcher == nil || len(t.unwatched) > 0 {
		return min(t.opts.Rescan, time.Second)
	}
	if len(t.doubt) > 0 {
		return min(t.opts.Rescan, doubtTime)
	}
	return t.opts.Rescan
}
