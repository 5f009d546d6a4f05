package logs

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/fault"
	"vpnd/pkg/logline"
	"vpnd/pkg/logstore"
	"vpnd/pkg/logtail"
)

const (
	maxRows  = 5000    // rows appended at once
	maxBytes = 2 << 20 // of their lines, unless one is longer

	// restAfter is the least time between the beginnings of two small appends:
	// each costs a transaction, and lines that come meanwhile share the next.
	restAfter = 15 * time.Millisecond
	smallRows = 1000
)

// sink keeps lines. It is called by one goroutine at a time; what it failed to
// keep is brought again.
func (s *Service) sink(ctx context.Context, chunks []logtail.Chunk) error {
	began := time.Now()
	p := packer{now: began, keep: func(b []logstore.Batch) error { return s.append(ctx, b) }}
	total := 0
	for _, c := range chunks {
		total += len(c.Lines)
		if err := p.chunk(c); err != nil {
			return s.refused(err)
		}
	}
	if err := p.flush(); err != nil {
		return s.refused(err)
	}
	s.accepted()
	if total < smallRows {
		rest := time.NewTimer(restAfter - time.Since(began))
		defer rest.Stop()
		select {
		case <-rest.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// gone forgets the positions of files that will never come again.
func (s *Service) gone(ctx context.Context, ids []logtail.FileID) error {
	for _, id := range ids {
		if err := s.lines.Forget(ctx, logstore.FileID(id)); err != nil {
			return err
		}
	}
	return nil
}

// append keeps batches, then tells the followers.
func (s *Service) append(ctx context.Context, batches []logstore.Batch) error {
	select {
	case s.appending <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.appending }()
	if !s.hub.active() {
		return s.lines.AppendAll(ctx, batches)
	}
	s.hub.begin(batches)
	defer s.hub.end()
	if err := s.lines.AppendAll(ctx, batches); err != nil {
		return err
	}
	s.hub.publish(news(batches))
	return nil
}

// news are the lines that an append brought, in the order of their arrival.
func news(batches []logstore.Batch) []logstore.Found {
	var out []logstore.Found
	for i := range batches {
		for k := range batches[i].Rows {
			if r := &batches[i].Rows[k]; r.New {
				out = append(out, logstore.Found{ID: r.ID, Record: r.Record})
			}
		}
	}
	slices.SortFunc(out, func(a, b logstore.Found) int { return compareArrival(a.ID, b.ID) })
	return out
}

// refused notes why the store takes nothing, once.
func (s *Service) refused(err error) error {
	f := fault.From(err)
	if f.Code == fault.Canceled {
		return err
	}
	if s.refuse.Swap(f) == nil {
		s.deps.Publish(events.Event{Type: "logs.paused", Reason: f.Reason, Message: "lines are not taken in: " + f.Message})
	}
	return err
}

func (s *Service) accepted() {
	if s.refuse.Swap(nil) != nil {
		s.deps.Publish(events.Event{Type: "logs.resumed", Message: "lines are taken in again; none was lost"})
	}
}

// packer makes batches of a bounded size out of chunks.
type packer struct {
	now         time.Time
	keep        func([]logstore.Batch) error
	batches     []logstore.Batch
	rows, bytes int
}

func (p *packer) chunk(c logtail.Chunk) error {
	d := logline.Defaults{Service: serviceOf(c.Path), File: c.Path, Now: p.now}
	b := logstore.Batch{File: logstore.FileID(c.File), From: c.From}
	for i, line := range c.Lines {
		d.Cut = c.Cut[i]
		b.Rows = append(b.Rows, logstore.Row{Offset: c.Ends[i], Record: logline.Parse(line, d)})
		b.To = c.Ends[i]
		p.rows++
		p.bytes += len(line)
		if p.rows >= maxRows || p.bytes >= maxBytes {
			p.batches = append(p.batches, b)
			if err := p.flush(); err != nil {
				return err
			}
			b = logstore.Batch{File: b.File, From: b.To}
		}
	}
	if b.To = c.To; b.To > b.From {
		p.batches = append(p.batches, b)
	}
	return nil
}

func (p *packer) flush() error {
	if len(p.batches) == 0 {
		return nil
	}
	err := p.keep(p.batches)
	p.batches, p.rows, p.bytes = nil, 0, 0
	return err
}

// serviceOf is who writes a file whose lines do not say so.
func serviceOf(path string) string {
	base := filepath.Base(path)
	return strings.TrimSuffix(base, filepath.Ext(base))
}
