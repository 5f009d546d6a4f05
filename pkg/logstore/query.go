package logstore

import (
	"cmp"
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
	id    ID
	rec   *logline.Record
	ch    *chunk
	block int
	row   int // in the block
}

func (pg *pager) before(a, b ID) bool {
	if pg.oldest {
		return a.less(b)
	}
	return b.less(a)
}

func (pg *pager) wanted(id ID) bool { return pg.after == nil || pg.before(*pg.after, id) }

// piece is a chunk or a mini, with the first time it can give.
type piece struct {
	edge int64
	ch   *chunk
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
	all := chunks(segs)
	out := make([]piece, 0, len(all)+len(minis))
	edge := func(tmin, tmax int64) int64 {
		if pg.oldest {
			return tmin
		}
		return -tmax
	}
	for _, ch := range all {
		out = append(out, piece{edge: edge(ch.tmin, ch.tmax), ch: ch})
	}
	for _, m := range minis {
		out = append(out, piece{edge: edge(m.tmin, m.tmax), mini: m})
	}
	slices.SortFunc(out, func(a, b piece) int { return cmp.Compare(a.edge, b.edge) })
	return out, nil
}

func (pg *pager) day(sc *scan, want int, size *int) ([]Found, error) {
	pieces, err := pg.pieces(sc)
	if err != nil {
		return nil, err
	}
	sc.paging = true
	f := &first{pg: pg, want: want}
	for _, p := range pieces {
		// Rows of pieces that begin later cannot be among the first.
		if last, full := f.last(); full && p.edge > pg.edgeOf(last.Time) {
			break
		}
		if p.ch != nil {
			err = pg.chunk(sc, p.ch, f)
		} else {
			err = sc.someOfMini(p.mini, !pg.oldest, f.wants, func(r *row) error {
				f.add(hit{id: r.id, rec: &r.rec})
				return nil
			})
		}
		if err != nil {
			return nil, err
		}
	}
	f.sort()
	return pg.fetch(sc, f.hits, size)
}

func (pg *pager) edgeOf(t int64) int64 {
	if pg.oldest {
		return t
	}
	return -t
}

// first keeps those hits that come first in the order of pages.
type first struct {
	pg     *pager
	want   int
	hits   []hit
	sorted int // so many are in order
}

// wants tells whether a hit could be among the first.
func (f *first) wants(id ID) bool {
	last, full := f.last()
	return f.pg.wanted(id) && !(full && f.pg.before(last, id))
}

// add takes a hit. It tells whether others that come after it in the order of
// pages may be wanted.
func (f *first) add(h hit) bool {
	if !f.pg.wanted(h.id) {
		return true
	}
	if last, full := f.last(); full && f.pg.before(last, h.id) {
		return false
	}
	if f.hits = append(f.hits, h); len(f.hits) >= 2*f.want+64 {
		f.sort()
	}
	return true
}

// last is the last of the first want hits, when there are so many in order.
func (f *first) last() (id ID, full bool) {
	if f.sorted < f.want {
		return ID{}, false
	}
	return f.hits[f.want-1].id, true
}

func (f *first) sort() {
	if f.sorted == len(f.hits) {
		return
	}
	slices.SortFunc(f.hits, func(a, b hit) int {
		if f.pg.before(a.id, b.id) {
			return -1
		}
		return 1
	})
	f.hits = f.hits[:min(len(f.hits), f.want)]
	f.sorted = len(f.hits)
}

// chunk adds the chunk's first matching rows. They are in order, so it is left
// as soon as there are enough.
func (pg *pager) chunk(sc *scan, ch *chunk, f *first) error {
	m, none, err := sc.matching(ch)
	if none || err != nil {
		return err
	}
	added := 0
	err = sc.eachBlock(ch, m.set, !pg.oldest, func(b *part, no, _ int, set bitset) (bool, error) {
		if err := sc.confirm(b, &m, set); err != nil {
			return false, err
		}
		times, err := b.column(colTime)
		if err != nil {
			return false, err
		}
		seqs, err := b.column(colSeq)
		if err != nil {
			return false, err
		}
		for _, r := range members(set, !pg.oldest) {
			n := len(f.hits)
			if !f.add(hit{id: ID{times.int(r), seqs.int(r)}, ch: ch, block: no, row: r}) {
				return false, nil
			}
			if len(f.hits) != n {
				added++
			}
			if added >= f.want {
				return false, nil
			}
		}
		return true, nil
	})
	f.sort()
	return err
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
		if h.ch == nil {
			out = append(out, Found{h.id, *h.rec})
			*size += rowSize(h.rec)
			hits = hits[1:]
			continue
		}
		n := 1
		for n < len(hits) && hits[n].ch == h.ch && hits[n].block == h.block {
			n++
		}
		rows := make([]int, n)
		for i := range n {
			rows[i] = hits[i].row
		}
		if !pg.oldest {
			slices.Reverse(rows)
		}
		b, err := sc.block(h.ch, h.block)
		if err != nil {
			return nil, err
		}
		at := len(out)
		err = b.records(rows, func(_ int, r row) error {
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
