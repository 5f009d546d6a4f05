package logstore

import (
	"context"
	"slices"
	"time"

	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
)

// Limits bound one query.
type Limits struct {
	Rows int           // of a page, or groups of an analysis; 0 and more than MaxRows: MaxRows
	Time time.Duration // then it ends with fault.Timeout; 0: as long as its context
}

// MaxRows is the longest page.
const MaxRows = 10_000

// pageBytes ends a page early, so that long lines do not fill the memory.
const pageBytes = 8 << 20

// Page says where a page begins and in which direction it goes.
type Page struct {
	Oldest bool   // oldest first, else newest first
	Cursor string // Next of the page before
}

// Found is one record of a page.
type Found struct {
	ID     ID
	Record logline.Record
}

// Result is one page.
type Result struct {
	Rows []Found
	Next string // cursor of the next page; empty: this was the last one
}

// limited gives the context that a query runs under.
func (s *Store) limited(ctx context.Context, l Limits, what string, q logquery.Query) (context.Context, func()) {
	start := time.Now()
	s.stats.queries.Add(1)
	cancel := func() {}
	if l.Time > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, l.Time, errTimeLimit)
	}
	return ctx, func() {
		cancel()
		if took := time.Since(start); took > s.opt.Slow {
			s.stats.slow.Add(1)
			s.opt.Log.Info("slow query", "kind", what, "query", cut(q.String(), 500), "took", took.Round(time.Millisecond).String())
		}
	}
}

func (l Limits) rows() int {
	if l.Rows <= 0 || l.Rows > MaxRows {
		return MaxRows
	}
	return l.Rows
}

// Query gives one page of matching records. A page may be shorter than its
// limit when the records are large; only an empty Next is the end.
func (s *Store) Query(ctx context.Context, q logquery.Query, p Page, l Limits) (Result, error) {
	ctx, done := s.limited(ctx, l, "query", q)
	defer done()
	pl := newPlan(q)
	pg := &pager{want: l.rows() + 1, oldest: p.Oldest}
	if p.Cursor != "" {
		id, err := ParseID(p.Cursor)
		if err != nil {
			return Result{}, err
		}
		pg.after = &id
		if p.Oldest {
			pl.since = max(pl.since, id.Time)
		} else if pl.until > id.Time {
			pl.until = id.Time + 1
		}
	}
	var res Result
	size := 0
	days := s.dayList(pl.since, pl.until)
	if !p.Oldest {
		slices.Reverse(days)
	}
	for _, d := range days {
		var part []Found
		_, err := s.readDay(ctx, d, func(c *conn) error {
			sc, err := s.newScan(ctx, d, c, pl)
			if err != nil {
				return err
			}
			part, err = pg.day(sc, pg.want-len(res.Rows), &size)
			return err
		})
		if err != nil {
			return Result{}, err
		}
		res.Rows = append(res.Rows, part...)
		if len(res.Rows) >= pg.want || size > pageBytes {
			break
		}
	}
	switch full := len(res.Rows) >= pg.want; {
	case full:
		res.Rows = res.Rows[:pg.want-1]
		res.Next = res.Rows[len(res.Rows)-1].ID.String()
	case size > pageBytes:
		res.Next = res.Rows[len(res.Rows)-1].ID.String()
	}
	return res, nil
}

// pager finds the first rows of a day in the order of pages.
type pager struct {
	want   int // one more than the page shows, to know whether there is another
	oldest bool
	after  *ID
}

// hit is a matching row, not read yet unless it is from a mini.
type hit struct {
	id  ID
	rec *logline.Record
	seg *segment
	row int
}

func (pg *pager) before(a, b ID) bool {
	if pg.oldest {
		return a.less(b)
	}
	return b.less(a)
}

func (pg *pager) wanted(id ID) bool { return pg.after == nil || pg.before(*pg.after, id) }

// piece is a segment or a mini, with the first time it can give.
type piece struct {
	edge int64
	seg  *segment
	mini miniMeta
}

func (pg *pager) pieces(sc *scan) ([]piece, error) {
	segs, err := sc.segments()
	if err != nil {
		return nil, err
	}
	minis, err := sc.minis()
	if err != nil {
		return nil, err
	}
	out := make([]piece, 0, len(segs)+len(minis))
	edge := func(tmin, tmax int64) int64 {
		if pg.oldest {
			return tmin
		}
		return -tmax
	}
	for _, seg := range segs {
		out = append(out, piece{edge: edge(seg.tmin, seg.tmax), seg: seg})
	}
	for _, m := range minis {
		out = append(out, piece{edge: edge(m.tmin, m.tmax), mini: m})
	}
	slices.SortFunc(out, func(a, b piece) int {
		switch {
		case a.edge < b.edge:
			return -1
		case a.edge > b.edge:
			return 1
		}
		return 0
	})
	return out, nil
}

func (pg *pager) day(sc *scan, want int, size *int) ([]Found, error) {
	pieces, err := pg.pieces(sc)
	if err != nil {
		return nil, err
	}
	var hits []hit
	for _, p := range pieces {
		// Rows of pieces that begin later cannot be among the first.
		if len(hits) >= want && p.edge > pg.edgeOf(hits[want-1].id.Time) {
			break
		}
		n := len(hits)
		if p.seg != nil {
			hits, err = pg.segment(sc, p.seg, want, hits)
		} else {
			err = sc.found(p.mini, func(r *row) error {
				if pg.wanted(r.id) {
					hits = append(hits, hit{id: r.id, rec: &r.rec})
				}
				return nil
			})
		}
		if err != nil {
			return nil, err
		}
		if len(hits) > n {
			slices.SortFunc(hits, func(a, b hit) int {
				if pg.before(a.id, b.id) {
					return -1
				}
				return 1
			})
			hits = hits[:min(len(hits), want)]
		}
	}
	return pg.fetch(sc, hits, size)
}

func (pg *pager) edgeOf(t int64) int64 {
	if pg.oldest {
		return t
	}
	return -t
}

// segment adds the segment's first matching rows. Its rows are in order, so it
// is left as soon as there are enough.
func (pg *pager) segment(sc *scan, seg *segment, want int, hits []hit) ([]hit, error) {
	cand, none, err := sc.candidates(seg)
	if err != nil || none {
		return hits, err
	}
	added := 0
	full := len(hits) >= want
	last := ID{}
	if full {
		last = hits[want-1].id
	}
	for k := range seg.blocks {
		i := k
		if !pg.oldest {
			i = len(seg.blocks) - 1 - k
		}
		b := openBlock(sc.c, sc.keys, seg, i)
		if full && pg.edgeOf(b.edge(pg.oldest)) > pg.edgeOf(last.Time) {
			break
		}
		set, err := sc.matching(b, cand)
		if err != nil {
			return nil, err
		}
		if set == nil {
			continue
		}
		rows := members(set, !pg.oldest)
		times, err := b.column(colTime)
		if err != nil {
			return nil, err
		}
		seqs, err := b.column(colSeq)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			id := ID{times.int(r), seqs.int(r) + int64(r)}
			if !pg.wanted(id) {
				continue
			}
			hits = append(hits, hit{id: id, seg: seg, row: b.meta.start + r})
			if added++; added >= want {
				return hits, nil
			}
		}
	}
	return hits, nil
}

func (b *block) edge(oldest bool) int64 {
	if oldest {
		return b.meta.tmin
	}
	return b.meta.tmax
}

func members(set bitset, backward bool) []int {
	out := make([]int, 0, set.count())
	for i := set.next(0); i >= 0; i = set.next(i + 1) {
		out = append(out, i)
	}
	if backward {
		slices.Reverse(out)
	}
	return out
}

// fetch reads the records of hits, block by block. It stops early when they
// are large.
func (pg *pager) fetch(sc *scan, hits []hit, size *int) ([]Found, error) {
	out := make([]Found, 0, len(hits))
	for len(hits) > 0 && *size <= pageBytes {
		h := hits[0]
		if h.seg == nil {
			out = append(out, Found{h.id, *h.rec})
			*size += rowSize(h.rec)
			hits = hits[1:]
			continue
		}
		if err := sc.check(); err != nil {
			return nil, err
		}
		no := blockOf(h.seg, h.row)
		meta := h.seg.blocks[no]
		n := 1
		for n < len(hits) && hits[n].seg == h.seg && hits[n].row >= meta.start && hits[n].row < meta.start+meta.n {
			n++
		}
		rows := make([]int, n)
		for i := range n {
			rows[i] = hits[i].row - meta.start
		}
		if !pg.oldest {
			slices.Reverse(rows)
		}
		at := len(out)
		err := openBlock(sc.c, sc.keys, h.seg, no).records(rows, func(_ int, r row) error {
			out = append(out, Found{r.id, r.rec})
			*size += rowSize(&r.rec)
			return nil
		})
		if err != nil {
			return nil, err
		}
		if !pg.oldest {
			slices.Reverse(out[at:])
		}
		hits = hits[n:]
	}
	return out, nil
}

func blockOf(seg *segment, row int) int {
	for i, m := range seg.blocks {
		if row < m.start+m.n {
			return i
		}
	}
	return 0
}

// Each calls fn for every matching record, oldest first, with memory for one
// page. Records that arrive meanwhile may be among them.
func (s *Store) Each(ctx context.Context, q logquery.Query, fn func(Found) error) error {
	p := Page{Oldest: true}
	for {
		r, err := s.Query(ctx, q, p, Limits{Rows: 4096})
		if err != nil {
			return err
		}
		for i := range r.Rows {
			if err := fn(r.Rows[i]); err != nil {
				return err
			}
		}
		if r.Next == "" {
			return nil
		}
		p.Cursor = r.Next
	}
}
