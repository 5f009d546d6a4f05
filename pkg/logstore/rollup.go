package logstore

import (
	"encoding/binary"

	"vpnd/pkg/logline"
)

// A roll-up counts a chunk's rows by service and level: how many there are, the
// times of the first and the last, and how many there are in each minute.
type rollup struct {
	services []string
	groups   []rolled
}

type rolled struct {
	service     int
	level       logline.Level
	n           int64
	first, last int64  // microseconds since 1970
	cells       string // minutes, each as a difference, and their counts
}

const microsAMinute = 60 * 1000 * 1000

// encodeRollup gives nothing when a row has a second service or level among its
// fields: then the counts would not tell the whole. Rows are in the order of
// time.
func encodeRollup(rows []row) []byte {
	type minute struct{ at, n int64 }
	type group struct {
		rolled
		minutes []minute
	}
	var services []string
	codes := map[string]int{}
	var known [][8]*group
	var groups []*group
	for i := range rows {
		r := &rows[i].rec
		for k := range r.Fields {
			if r.Fields[k].Key == "service" || r.Fields[k].Key == "level" {
				return nil
			}
		}
		service, ok := codes[r.Service]
		if !ok {
			service = len(services)
			codes[r.Service] = service
			services = append(services, r.Service)
			known = append(known, [8]*group{})
		}
		t := rows[i].id.Time
		g := known[service][r.Level]
		if g == nil {
			g = &group{rolled: rolled{service: service, level: r.Level, first: t}}
			known[service][r.Level] = g
			groups = append(groups, g)
		}
		g.n++
		g.last = t
		at := floorDiv(t, microsAMinute)
		if k := len(g.minutes); k == 0 || g.minutes[k-1].at != at {
			g.minutes = append(g.minutes, minute{at: at})
		}
		g.minutes[len(g.minutes)-1].n++
	}
	b := newFrame(len(groups)*64 + 256)
	b = binary.AppendUvarint(b, uint64(len(services)))
	for _, s := range services {
		b = appendString(b, s)
	}
	var cells []byte
	for _, g := range groups {
		b = binary.AppendUvarint(b, uint64(g.service)<<3|uint64(g.level))
		b = binary.AppendUvarint(b, uint64(g.n))
		b = binary.AppendUvarint(b, uint64(g.first))
		b = binary.AppendUvarint(b, uint64(g.last-g.first))
		cells = cells[:0]
		last := floorDiv(g.first, microsAMinute)
		for _, m := range g.minutes {
			cells = binary.AppendUvarint(cells, uint64(m.at-last))
			cells = binary.AppendUvarint(cells, uint64(m.n))
			last = m.at
		}
		b = binary.AppendUvarint(b, uint64(len(cells)))
		b = append(b, cells...)
	}
	return sealFrame(b)
}

func openRollup(blob []byte) (*rollup, error) {
	body, err := openFrame(blob)
	if err != nil {
		return nil, err
	}
	r := reader{b: body}
	k := r.int()
	if k > len(body) {
		return nil, errDamaged
	}
	out := &rollup{services: make([]string, k), groups: make([]rolled, 0, 8*k)}
	for i := range out.services {
		out.services[i] = r.string()
	}
	for r.left() > 0 && !r.bad {
		code := r.uvarint()
		g := rolled{service: int(code >> 3), level: logline.Level(code & 7), n: int64(r.uvarint()), first: int64(r.uvarint())}
		g.last = g.first + int64(r.uvarint())
		g.cells = r.string()
		if g.service < 0 || g.service >= k || g.level > logline.Fatal {
			return nil, errDamaged
		}
		out.groups = append(out.groups, g)
	}
	if r.bad {
		return nil, errDamaged
	}
	return out, nil
}

// minutes calls fn for each minute of a group, in rising order.
func (g *rolled) minutes(fn func(minute, n int64) error) error {
	r := reader{b: g.cells}
	minute := floorDiv(g.first, microsAMinute)
	for r.left() > 0 {
		minute += int64(r.uvarint())
		n := int64(r.uvarint())
		if r.bad {
			return errDamaged
		}
		if err := fn(minute, n); err != nil {
			return err
		}
	}
	return nil
}

// rolled tells whether roll-ups can answer: they know minutes, services and
// levels.
func (g *grouping) rolled(p *plan) bool {
	for _, name := range g.by {
		if name != "service" && name != "level" {
			return false
		}
	}
	return p.simple && g.bucket%microsAMinute == 0
}

// covers tells whether the time of the query has whole minutes of the chunk.
func (p *plan) covers(ch *chunk) bool {
	return (p.since <= ch.tmin || p.since%microsAMinute == 0) && (p.until > ch.tmax || p.until%microsAMinute == 0)
}

// holds tells whether all the chunk is in the time of the query.
func (p *plan) holds(ch *chunk) bool { return p.since <= ch.tmin && ch.tmax < p.until }

// rollup counts a chunk from its roll-up. done is false when that does not tell.
func (sc *scan) rollup(ch *chunk, t *tally) (done bool, err error) {
	if err := sc.check(); err != nil {
		return false, err
	}
	whole := sc.p.holds(ch)
	if t.g.bucket == 0 && t.depth() > 0 && !whole {
		return false, nil // the first and the last record of a group may be outside
	}
	blob, err := sc.c.blob("SELECT data FROM rollup WHERE chunk=?", ch.no)
	if err != nil || blob == nil {
		return false, err
	}
	r, err := openRollup(blob)
	if err != nil {
		return false, err
	}
	start := floorDiv(ch.tmin, microsAMinute)
	var buckets []uint32 // of each minute from start on
	if t.g.bucket != 0 {
		buckets = make([]uint32, floorDiv(ch.tmax, microsAMinute)-start+1)
		for i := range buckets {
			buckets[i] = noID
		}
	}
	for i := range r.groups {
		g := &r.groups[i]
		service := r.services[g.service]
		if !sc.wants(service, g.level) {
			continue
		}
		var path [MaxBy + 1]uint32
		key := path[:0]
		if t.g.bucket != 0 {
			key = path[:1]
		}
		skip := false
		for i, name := range t.g.by {
			text := service
			if name == "level" {
				text = levelTexts[g.level]
			}
			if skip = text == "" && t.g.present; skip {
				break
			}
			key = append(key, t.value(i, text))
		}
		switch {
		case skip:
			continue
		case t.g.bucket == 0 && whole:
			err = t.add(key, g.n, g.first, g.last)
		default:
			err = g.minutes(func(minute, n int64) error {
				// The chunk's own bounds hold where the query's are not whole minutes.
				at := minute * microsAMinute
				if at+microsAMinute <= sc.p.since || at >= sc.p.until {
					return nil
				}
				if buckets != nil {
					if minute < start || minute-start >= int64(len(buckets)) {
						return errDamaged
					}
					b := &buckets[minute-start]
					if *b == noID {
						*b = t.bucket(floorDiv(at, t.g.bucket))
					}
					key[0] = *b
				}
				return t.add(key, n, at, at)
			})
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// wants tells whether records of a service and a level match a plan that asks
// for nothing else. Each is asked about once.
func (sc *scan) wants(service string, l logline.Level) bool {
	known := sc.wanted[service]
	if known == nil {
		known = &[8]int8{}
		if sc.wanted == nil {
			sc.wanted = map[string]*[8]int8{}
		}
		sc.wanted[service] = known
	}
	if known[l] == 0 {
		known[l] = 1
		if sc.asks(service, l) {
			known[l] = 2
		}
	}
	return known[l] == 2
}

func (sc *scan) asks(service string, l logline.Level) bool {
	for _, f := range sc.p.fields {
		r := logline.Record{Level: l}
		if f.slot == slotService {
			r.Service = service
		}
		if !f.match(&r) {
			return false
		}
	}
	return true
}
