package logstore

import (
	"context"
	"database/sql/driver"
	"math/bits"
	"slices"
)

// scan asks one day about one plan, over one state of its file.
type scan struct {
	*reading
	ctx    context.Context
	s      *Store
	d      *day
	p      *plan
	blocks map[int64]*part // that were read lately
	kept   int             // bytes of them
	paging bool            // records of what matches will be shown
	spare  [4]bitset
	wanted map[string]*[8]int8 // of services, by level: 0 not asked, 1 no, 2 yes
}

// bits gives an empty set that is good until the same one is asked for again.
func (sc *scan) bits(which, n int) bitset {
	words := (n + 63) / 64
	if cap(sc.spare[which]) < words {
		sc.spare[which] = make(bitset, max(words, 256))
	}
	s := sc.spare[which][:words]
	clear(s)
	return s
}

// The sets of a scan.
const (
	bitsRows = iota // of the chunk that is asked
	bitsTerm
	bitsList
	bitsWord
)

// keptBlocks bounds the blocks that one query keeps in memory.
const keptBlocks = 4 << 20

func (s *Store) newScan(ctx context.Context, d *day, c *conn, p *plan) (*scan, error) {
	rd, err := newReading(c)
	return &scan{reading: rd, ctx: ctx, s: s, d: d, p: p, blocks: map[int64]*part{}}, err
}

// check ends a query whose caller has gone, and lets a day be removed.
func (sc *scan) check() error {
	if sc.ctx.Err() != nil {
		return ended(sc.ctx)
	}
	if sc.d.gone.Load() {
		return errGone
	}
	return nil
}

// segments gives those segments that may hold rows of the plan, with the chunks
// that may in their mask.
func (sc *scan) segments() ([]*segment, error) {
	var out []*segment
	err := sc.c.each(segmentQuery+" WHERE tmax>=? AND tmin<? AND levels&?<>0", func(r []driver.Value) error {
		seg, err := readSegment(r)
		if err != nil {
			return err
		}
		for i := range seg.chunks {
			c := &seg.chunks[i]
			if c.tmax >= sc.p.since && c.tmin < sc.p.until && c.levels&sc.p.levels != 0 {
				seg.mask |= 1 << i
			}
		}
		if seg.left = bits.OnesCount64(seg.mask); seg.left > 0 {
			out = append(out, seg)
		}
		return nil
	}, sc.p.since, sc.p.until, int64(sc.p.levels))
	return out, err
}

// chunks gives the chunks of segments that may hold rows of the plan, in the
// order of time.
func chunks(segs []*segment) []*chunk {
	var out []*chunk
	for _, seg := range segs {
		for i := range seg.chunks {
			if seg.mask&(1<<i) != 0 {
				out = append(out, &seg.chunks[i])
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *chunk) int {
		switch {
		case a.tmin < b.tmin:
			return -1
		case a.tmin > b.tmin:
			return 1
		}
		return 0
	})
	return out
}

// minis gives what waits to become chunks.
func (sc *scan) minis() ([]miniMeta, error) {
	var out []miniMeta
	err := sc.c.each("SELECT no, rows, bytes, tmin, tmax, levels FROM mini WHERE tmax>=? AND tmin<? AND levels&?<>0", func(r []driver.Value) error {
		out = append(out, miniMeta{integer(r[0]), int(integer(r[1])), int(integer(r[2])), integer(r[3]), integer(r[4]), int(integer(r[5]))})
		return nil
	}, sc.p.since, sc.p.until, int64(sc.p.levels))
	return out, err
}

// inMini calls fn for the matching rows of a mini, in order of arrival.
func (sc *scan) inMini(m miniMeta, fn func(r *row) error) error {
	return sc.someOfMini(m, false, func(ID) bool { return true }, fn)
}

// someOfMini calls fn for the matching rows whose id is wanted.
func (sc *scan) someOfMini(m miniMeta, backward bool, wanted func(ID) bool, fn func(r *row) error) error {
	if err := sc.check(); err != nil {
		return err
	}
	rows, err := sc.s.rows(sc.d, sc.c, m.no)
	if err != nil {
		return err
	}
	one := func(i int) error {
		r := &rows[i]
		if r.id.Time < sc.p.since || r.id.Time >= sc.p.until || sc.p.levels&(1<<r.rec.Level) == 0 || !wanted(r.id) || !sc.p.match(&r.rec) {
			return nil
		}
		return fn(r)
	}
	if sc.p.needle != "" && len(rows) > 16 {
		if h := sc.s.cache.haystack(sc.d, m.no); h != nil {
			return h.rows(sc.p.needle, one)
		}
	}
	for k := range rows {
		i := k
		if backward {
			i = len(rows) - 1 - k
		}
		if err := one(i); err != nil {
			return err
		}
	}
	return nil
}

// found is what a segment has of one of the plan's word terms: for each list of
// words that all occur, where each of them does.
type found struct {
	not   bool
	lists [][]hits
}

// look looks the plan's words up in a segment. A chunk that cannot match leaves
// the segment's mask.
func (sc *scan) look(seg *segment) error {
	if seg.looked {
		return nil
	}
	seg.looked = true
	for i := range sc.p.words {
		t := &sc.p.words[i]
		f := found{not: t.not}
		any := uint64(0)
		for _, list := range t.any {
			both := seg.mask
			var all []hits
			for _, w := range list {
				h, err := sc.c.lookup(seg, w, both)
				if err != nil {
					return err
				}
				if both &= h.mask; both == 0 {
					break
				}
				all = append(all, h)
			}
			if both != 0 {
				f.lists = append(f.lists, all)
				any |= both
			}
		}
		if !t.not {
			if seg.mask &= any; seg.mask == 0 {
				return nil
			}
		}
		seg.found = append(seg.found, f)
	}
	return nil
}

// candidates are the rows of a chunk that words and zones leave over. nil: all.
func (sc *scan) candidates(ch *chunk) (set bitset, none bool, err error) {
	if err := sc.check(); err != nil {
		return nil, false, err
	}
	seg := ch.seg
	if err := sc.look(seg); err != nil {
		return nil, false, err
	}
	if seg.left--; seg.left == 0 {
		defer func() { seg.found, seg.zones = nil, nil }()
	}
	if seg.mask&(1<<ch.at) == 0 {
		return nil, true, nil
	}
	if none, err := sc.excluded(ch); none || err != nil {
		return nil, none, err
	}
	for i := range seg.found {
		f := &seg.found[i]
		got := sc.bits(bitsTerm, ch.n)
		if set == nil && !f.not {
			got = sc.bits(bitsRows, ch.n)
		}
		for _, list := range f.lists {
			if err := sc.allOf(list, ch, got); err != nil {
				return nil, false, err
			}
		}
		switch {
		case f.not:
			if set == nil {
				set = sc.bits(bitsRows, ch.n)
				set.fill(ch.n)
			}
			set.andNot(got)
		case set == nil:
			set = got
		default:
			set.and(got)
		}
		if set.empty() {
			return nil, true, nil
		}
	}
	return set, false, nil
}

// allOf adds to set the rows of a chunk that have every word of a list.
func (sc *scan) allOf(list []hits, ch *chunk, set bitset) error {
	for i := range list {
		if list[i].mask&(1<<ch.at) == 0 {
			return nil
		}
	}
	if len(list) == 1 {
		return list[0].into(set, ch.at, ch.n)
	}
	both := sc.bits(bitsList, ch.n)
	if err := list[0].into(both, ch.at, ch.n); err != nil {
		return err
	}
	for i := range list[1:] {
		one := sc.bits(bitsWord, ch.n)
		if err := list[i+1].into(one, ch.at, ch.n); err != nil {
			return err
		}
		both.and(one)
	}
	set.or(both)
	return nil
}

// excluded tells whether the chunk's zones say that no row matches.
func (sc *scan) excluded(ch *chunk) (bool, error) {
	if len(sc.p.columns) == 0 {
		return false, nil
	}
	zones, err := sc.c.segmentZones(ch.seg)
	if err != nil {
		return false, err
	}
	asked := make([]zone, len(sc.p.columns))
	_, more, err := eachZone(zones[ch.at], func(name string, z *zone) bool {
		for i, f := range sc.p.columns {
			if f.field == name {
				asked[i] = *z
			}
		}
		return true
	})
	if err != nil {
		return false, err
	}
	for i, f := range sc.p.columns {
		if asked[i].rows == 0 && more && f.slot < 0 {
			continue // it may be one of those without a zone
		}
		if f.excludes(&asked[i], ch.n) {
			return true, nil
		}
	}
	return false, nil
}

// block reads a block, or takes it from those that were read lately.
func (sc *scan) block(ch *chunk, no int) (*part, error) {
	id := blockID(ch.no, no)
	if b := sc.blocks[id]; b != nil {
		return b, nil
	}
	if err := sc.check(); err != nil {
		return nil, err
	}
	b, size, err := sc.reading.block(ch, no)
	if err != nil {
		return nil, err
	}
	if sc.kept += size; sc.kept > keptBlocks {
		clear(sc.blocks)
		sc.kept = size
	}
	sc.blocks[id] = b
	return b, nil
}

// eachBlock calls fn for the blocks of a chunk that have members of set, with
// the first row of the block and the members in it, until there is no need for
// more.
func (sc *scan) eachBlock(ch *chunk, set bitset, backward bool, fn func(b *part, no, from int, rows bitset) (more bool, err error)) error {
	blocks := ch.countBlocks()
	for k := range blocks {
		no := k
		if backward {
			no = blocks - 1 - k
		}
		from, to := ch.span(no)
		if i := set.next(from); i < 0 || i >= to {
			continue
		}
		b, err := sc.block(ch, no)
		if err != nil {
			return err
		}
		if more, err := fn(b, no, from, set.slice(from, to-from)); !more || err != nil {
			return err
		}
	}
	return nil
}
