package logstore

import (
	"vpnd/pkg/logline"
)

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

// covers tells whether the time of the query has whole minutes of the segment.
func (sc *scan) covers(seg *segment) bool {
	p := sc.p
	return (p.since <= seg.tmin || p.since%microsAMinute == 0) && (p.until > seg.tmax || p.until%microsAMinute == 0)
}

// rollup counts a segment from its roll-up. done is false when it has none.
func (sc *scan) rollup(seg *segment, g grouping, into counts) (done bool, err error) {
	if err := sc.check(); err != nil {
		return false, err
	}
	blob, err := sc.c.blob("SELECT data FROM rollup WHERE segment=?", seg.no)
	if err != nil || blob == nil {
		return false, err
	}
	r, err := decodeRollup(blob)
	if err != nil {
		return false, err
	}
	wanted := make([][8]bool, len(r.services))
	for i, service := range r.services {
		for l := logline.Unknown; l <= logline.Fatal; l++ {
			wanted[i][l] = sc.wants(service, l)
		}
	}
	// Cells of one bucket follow one another: their sums are kept until it ends.
	sums := make([][8]int64, len(r.services))
	bucket, any := int64(0), false
	flush := func() error {
		if !any {
			return nil
		}
		for i := range sums {
			for l, n := range sums[i] {
				if n == 0 {
					continue
				}
				sums[i][l] = 0
				if err := g.cell(bucket, r.services[i], logline.Level(l), n, into); err != nil {
					return err
				}
			}
		}
		any = false
		return nil
	}
	for _, c := range r.cells {
		t := c.minute * microsAMinute
		// The segment's own bounds hold where the query's are not whole minutes.
		if t+microsAMinute <= sc.p.since || t >= sc.p.until || !wanted[c.service][c.level] {
			continue
		}
		if g.bucket != 0 {
			if n := floorDiv(t, g.bucket); n != bucket {
				if err := flush(); err != nil {
					return false, err
				}
				bucket = n
			}
		}
		sums[c.service][c.level] += c.n
		any = true
	}
	return true, flush()
}

func (sc *scan) wants(service string, l logline.Level) bool {
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

func (g *grouping) cell(bucket int64, service string, l logline.Level, n int64, into counts) error {
	var key []byte
	if g.bucket != 0 {
		key = appendBucket(key, bucket)
	}
	for _, name := range g.by {
		text := service
		if name == "level" {
			text = l.String()
		}
		if text == "" && g.present {
			return nil
		}
		key = appendString(key, text)
	}
	return into.add(key, n)
}
