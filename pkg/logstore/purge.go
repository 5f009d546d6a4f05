package logstore

import (
	"context"
	"maps"
	"strings"

	"vpnd/pkg/fault"
	"vpnd/pkg/logquery"
)

// DayCount is a number of records of one day.
type DayCount struct {
	Day  Day
	Rows int64
}

// Purge removes what matches, or with dry only counts it, and gives the number
// for each day that has any. A query without any condition is refused. When it
// fails, the days before the failing one are done and in the answer.
func (s *Store) Purge(ctx context.Context, q logquery.Query, dry bool) ([]DayCount, error) {
	if len(q.Terms) == 0 && q.Since.IsZero() && q.Until.IsZero() {
		return nil, fault.InvalidField("query", "an empty query would remove every record").
			WithReason("empty_query").WithHint("say which: service=…, until=…")
	}
	p := newPlan(q)
	var out []DayCount
	for _, d := range s.dayList(p.since, p.until) {
		n := int64(0)
		var err error
		whole := len(q.Terms) == 0 && p.since <= d.date.start() && p.until >= (d.date+1).start() && d.date < DayOf(s.opt.Now())
		if dry || whole {
			n, err = s.countDay(ctx, d, p)
		}
		switch {
		case dry || err != nil:
		case whole: // goes with its file, which a full disk does not hinder
			err = s.remove(ctx, d)
		default:
			n, err = s.purgeDay(ctx, d, p)
		}
		if n > 0 {
			out = append(out, DayCount{d.date, n})
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

func (s *Store) countDay(ctx context.Context, d *day, p *plan) (int64, error) {
	part := newTally(grouping{})
	_, err := s.readDay(ctx, d, func(c *conn) error {
		sc, err := s.newScan(ctx, d, c, p)
		if err != nil {
			return err
		}
		return sc.count(part)
	})
	return part.total(), err
}

// purgeDay rewrites the pieces that have such rows, one at a time and without
// the turn, so that appends go on. Rows only move to pieces with higher numbers:
// what was moved while a round went by is met in the next.
func (s *Store) purgeDay(ctx context.Context, d *day, p *plan) (total int64, err error) {
	after := int64(0)
	for range maxRounds {
		r := &purgeRound{s: s, d: d, p: p, after: after}
		err := r.run(ctx)
		total += r.removed
		if err != nil {
			return total, err
		}
		if r.removed == 0 {
			break
		}
		after = r.upTo
	}
	if total == 0 {
		return 0, nil
	}
	return total, s.removeEmpty(ctx, d)
}

// maxRounds ends a purge of rows that keep coming in. A row that was there when
// it began moves twice at most: to a segment, and to a larger one.
const maxRounds = 4

// purgeRound goes over the pieces of a day once.
type purgeRound struct {
	s           *Store
	d           *day
	p           *plan
	after, upTo int64 // numbers of the pieces: (after, upTo]
	removed     int64
}

func (r *purgeRound) run(ctx context.Context) error {
	keys, err := r.begin(ctx)
	if err != nil || keys == nil {
		return err
	}
	var minis []miniMeta
	var segs []*segment
	ok, err := r.s.readDay(ctx, r.d, func(c *conn) error {
		sc, err := r.s.newScan(ctx, r.d, c, r.p)
		if err != nil {
			return err
		}
		if minis, err = sc.minis(); err != nil {
			return err
		}
		segs, err = sc.segments()
		return err
	})
	if err != nil || !ok {
		return err
	}
	for _, m := range minis {
		if m.no > r.after && m.no <= r.upTo {
			if err := r.piece(ctx, change{mini: m}, keys); err != nil {
				return err
			}
		}
	}
	for _, seg := range segs {
		if seg.no > r.after && seg.no <= r.upTo {
			if err := r.piece(ctx, change{seg: seg}, keys); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin gives the day's columns, nil when the day is gone.
func (r *purgeRound) begin(ctx context.Context) (map[string]int, error) {
	if err := r.s.take(ctx); err != nil {
		return nil, err
	}
	defer r.s.pass()
	if r.d.gone.Load() {
		return nil, nil
	}
	if _, err := r.s.writer(r.d.date); err != nil {
		return nil, r.s.sealFault(r.d, err)
	}
	r.upTo = r.d.nextNo - 1
	return onlyThese(r.d.keys), nil
}

// onlyThese are keys that leave no number for a new field: the sealer may be
// giving out the same number meanwhile.
func onlyThese(keys map[string]int) map[string]int {
	out := maps.Clone(keys)
	if out == nil {
		out = map[string]int{}
	}
	out[strings.Repeat("\x00", 300)] = colKey + maxKeys - 1 // longer than any that gets a column
	return out
}

// removeEmpty removes a day's file when nothing is left in it.
func (s *Store) removeEmpty(ctx context.Context, d *day) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	some, err := true, error(nil)
	if !d.gone.Load() {
		if _, err = s.writer(d.date); err == nil && len(d.head) == 0 {
			some, err = d.w.has("SELECT 1 FROM segment LIMIT 1")
		}
		err = s.sealFault(d, err)
	}
	s.pass()
	if some || err != nil {
		return err
	}
	return s.remove(ctx, d)
}
