package logs

import (
	"context"
	"sync"
	"time"

	api "vpnd/pkg/api/logs"
	"vpnd/pkg/logstore"
	"vpnd/pkg/logtail"
	"vpnd/pkg/rpc"
)

// meter remembers a minute of what logtail says, for the rate and the lags.
type meter struct {
	mu    sync.Mutex
	ring  []sample // the oldest first
	files map[string]*progress
}

type sample struct {
	at    time.Time
	lines int64
}

// progress is when a file was first seen with more than the sink has: the
// sizes that were seen, in rising order.
type progress struct {
	sizes []struct {
		at   time.Time
		size int64
	}
	last  logtail.FileStat
	since time.Time // when it became so
}

const (
	meterEvery = time.Second
	meterKept  = 61
	sizesKept  = 600

	// stillAfter is how long a file with a rest that nobody reads does not change
	// until that is taken for the beginning of a line.
	stillAfter = 5 * time.Second
)

// measure looks at the files every second.
func (s *Service) measure(ctx context.Context) {
	tick := time.NewTicker(meterEvery)
	defer tick.Stop()
	for {
		s.meter.look(time.Now(), s.tail.Snapshot())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (m *meter) look(now time.Time, snap logtail.Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ring = append(m.ring, sample{now, snap.Lines})
	if len(m.ring) > meterKept {
		m.ring = m.ring[1:]
	}
	here := map[string]bool{}
	for _, f := range snap.Files {
		key := f.Name + "\x00" + f.Path
		here[key] = true
		p := m.files[key]
		if p == nil {
			p = &progress{}
			m.files[key] = p
		}
		p.look(now, f)
	}
	for key := range m.files {
		if !here[key] {
			delete(m.files, key)
		}
	}
}

func (p *progress) look(now time.Time, f logtail.FileStat) {
	if p.since.IsZero() || f != p.last {
		p.last, p.since = f, now
	}
	n := 0
	for n < len(p.sizes) && p.sizes[n].size <= f.Kept {
		n++
	}
	p.sizes = p.sizes[n:]
	if f.Lag() == 0 || len(p.sizes) >= sizesKept {
		return
	}
	if n := len(p.sizes); n == 0 || f.Size > p.sizes[n-1].size {
		p.sizes = append(p.sizes, struct {
			at   time.Time
			size int64
		}{now, f.Size})
	}
}

// rate is lines a second over what is remembered.
func (m *meter) rate(now time.Time, lines int64) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ring) == 0 || !now.After(m.ring[0].at) {
		return 0
	}
	return float64(lines-m.ring[0].lines) / now.Sub(m.ring[0].at).Seconds()
}

// lag is the age of the oldest byte that is not kept yet, as far as was seen.
// When the reader is idle, what a file that stays as it is has more is a line
// without its end: nobody can take it in yet, so that is no lag.
func (m *meter) lag(now time.Time, f logtail.FileStat, idle bool) int64 {
	if f.Lag() == 0 {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.files[f.Name+"\x00"+f.Path]
	switch {
	case p == nil:
		return 1
	case idle && f == p.last && now.Sub(p.since) > stillAfter:
		return 0
	}
	for _, z := range p.sizes {
		if z.size > f.Kept {
			return max(1, now.Sub(z.at).Milliseconds())
		}
	}
	return 1
}

func (s *Service) status(ctx context.Context, _ *struct{}) (*api.Status, error) {
	kept, err := s.lines.Status(ctx)
	if err != nil {
		return nil, err
	}
	now, snap := time.Now(), s.tail.Snapshot()
	out := &api.Status{
		Rows: kept.Rows, Bytes: kept.Bytes, LinesIn: snap.Lines, BytesIn: snap.Bytes, Rate: s.meter.rate(now, snap.Lines),
		PausedMs: snap.Paused.Milliseconds(), SlowQueries: kept.Slow, Followers: s.hub.count(),
		Dirs: s.cfg.Dirs, Store: s.deps.StateDir, Days: []api.Day{}, Files: []api.File{}, MoreSkipped: snap.SkippedBeyond,
	}
	if kept.Rows > 0 {
		oldest, newest := kept.Oldest, kept.Newest
		out.Oldest, out.Newest = &oldest, &newest
	}
	for _, d := range kept.Days {
		out.Days = append(out.Days, api.Day{Day: d.Day.String(), Rows: d.Rows, Bytes: d.Bytes})
	}
	for _, a := range kept.Aside {
		if a.Day != logstore.NoDay {
			out.Days = append(out.Days, api.Day{Day: a.Day.String(), Bytes: a.Bytes, Damaged: "set aside as " + a.File + ": " + a.Reason})
		}
	}
	refused := s.refuse.Load()
	idle := refused == nil && snap.InFlight == 0
	for _, f := range snap.Files {
		v := api.File{Path: f.Name, Offset: f.Kept, Size: f.Size, LagMs: s.meter.lag(now, f, idle)}
		out.LagMs = max(out.LagMs, v.LagMs)
		out.Files = append(out.Files, v)
	}
	for _, f := range snap.Skipped {
		out.Files = append(out.Files, api.File{Path: f.Path, Skipped: f.Reason})
	}
	if out.Problems = problems(out, &kept, refused); len(out.Problems) > 0 {
		out.Problem, out.Hint = out.Problems[0].What, out.Problems[0].Hint
	}
	return out, nil
}

// Register offers the operations.
func (s *Service) Register(srv *rpc.Server) {
	rpc.Handle(srv, api.Query, s.query)
	rpc.Handle(srv, api.Count, s.count)
	rpc.Handle(srv, api.Stats, s.stats)
	rpc.Handle(srv, api.Top, s.top)
	rpc.Handle(srv, api.Histogram, s.histogram)
	rpc.Handle(srv, api.Fields, s.fields)
	rpc.Handle(srv, api.Services, s.services)
	rpc.HandleStream(srv, api.Follow, s.follow)
	rpc.HandleStream(srv, api.Export, s.export)
	rpc.Handle(srv, api.ListSaved, s.listSaved)
	rpc.Handle(srv, api.Save, s.save)
	rpc.Handle(srv, api.RunSaved, s.runSaved)
	rpc.Handle(srv, api.DeleteSaved, s.deleteSaved)
	rpc.Handle(srv, api.Purge, s.purge)
	rpc.Handle(srv, api.GetStatus, s.status)
}
