package logtail

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Skipped is a file or directory that is not followed, and why.
type Skipped struct{ Path, Reason string }

// FileStat is one followed file.
type FileStat struct {
	Path string // where it is now, empty when it was deleted or moved away
	Name string // the name its lines are under
	Size int64
	Kept int64 // bytes the sink has
}

// Lag is how many bytes wait to be read.
func (f FileStat) Lag() int64 { return max(0, f.Size-f.Kept) }

// Snapshot is the state at one moment.
type Snapshot struct {
	Lines, Bytes  int64 // kept by the sink
	Cut           int64 // lines longer than MaxLine
	Truncations   int64
	Renames       int64
	Deletions     int64
	Overflows     int64 // the kernel's queue ran over, everything was looked at
	InFlight      int   // bytes of memory read and not yet kept
	PeakInFlight  int
	Paused        time.Duration // reading waited for the sink
	SinkError     string        // why the sink refuses, empty when it does not
	Unwatched     int           // directories seen by rescans alone
	Open          int           // descriptors held
	SkippedBeyond int           // more skipped than Skipped lists
	Skipped       []Skipped     // sorted by path, at most 1000
	Files         []FileStat    // sorted by name
}

const maxSkipped = 1000

// Stats collects what a Run does. The zero value is ready.
type Stats struct {
	mu          sync.Mutex
	s           Snapshot
	filling     int // cost of the batch being filled
	sinking     int // cost of the batch at the sink
	pausedSince time.Time
	skipped     map[string]string
	files       map[*file]struct{}
}

// Snapshot copies the state.
func (s *Stats) Snapshot() Snapshot {
	out, skipped, files := s.copied()
	for _, path := range slices.Sorted(maps.Keys(skipped)) {
		out.Skipped = append(out.Skipped, Skipped{path, skipped[path]})
	}
	for _, f := range files {
		st := *f.stat.Load()
		st.Kept = f.kept.Load()
		out.Files = append(out.Files, st)
	}
	slices.SortFunc(out.Files, func(a, b FileStat) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Path, b.Path))
	})
	return out
}

// copied holds the lock for no longer than a copy takes: the reader needs it for
// every file, and whoever asks often, with thousands of files, would stop it.
func (s *Stats) copied() (Snapshot, map[string]string, []*file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.s
	out.InFlight = s.filling + s.sinking
	if !s.pausedSince.IsZero() {
		out.Paused += time.Since(s.pausedSince)
	}
	files := make([]*file, 0, len(s.files))
	for f := range s.files {
		files = append(files, f)
	}
	return out, maps.Clone(s.skipped), files
}

func (s *Stats) change(do func(*Snapshot)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do(&s.s)
}

func (s *Stats) overflow() { s.change(func(p *Snapshot) { p.Overflows++ }) }

// fill notes the cost of the batch being filled.
func (s *Stats) fill(cost int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filling = cost
	s.s.PeakInFlight = max(s.s.PeakInFlight, s.filling+s.sinking)
}

// taken notes the cost of the batch that the sink has now.
func (s *Stats) taken(cost int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sinking = cost
}

func (s *Stats) delivered(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sinking = 0
	for _, p := range b.parts {
		s.s.Lines += int64(p.last - p.first)
		s.s.Bytes += p.chunk.To - p.chunk.From
	}
	for _, c := range b.cut {
		if c {
			s.s.Cut++
		}
	}
}

// sink notes how the last call ended, and says whether that is news.
func (s *Stats) sink(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	news := (text == "") != (s.s.SinkError == "")
	s.s.SinkError = text
	return news
}

func (s *Stats) paused(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case yes && s.pausedSince.IsZero():
		s.pausedSince = time.Now()
	case !yes && !s.pausedSince.IsZero():
		s.s.Paused += time.Since(s.pausedSince)
		s.pausedSince = time.Time{}
	}
}

// skip says whether the reason is news.
func (s *Stats) skip(path, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.skipped[path] == reason {
		return false
	}
	if _, known := s.skipped[path]; !known && len(s.skipped) >= maxSkipped {
		s.s.SkippedBeyond++
		return false
	}
	if s.skipped == nil {
		s.skipped = map[string]string{}
	}
	s.skipped[path] = reason
	return true
}

// prune forgets what was skipped and is no more, and begins to count anew what
// there is no room for.
func (s *Stats) prune(gone func(path string) bool) {
	s.mu.Lock()
	skipped := slices.Collect(maps.Keys(s.skipped))
	s.s.SkippedBeyond = 0
	s.mu.Unlock()
	for _, path := range skipped {
		if gone(path) {
			s.unskip(path)
		}
	}
}

func (s *Stats) unskip(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.skipped, path)
}

func (s *Stats) follow(f *file, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !yes {
		delete(s.files, f)
		return
	}
	if s.files == nil {
		s.files = map[*file]struct{}{}
	}
	s.files[f] = struct{}{}
}
