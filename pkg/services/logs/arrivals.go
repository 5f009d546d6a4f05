package logs

import (
	"context"
	"slices"
	"time"

	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// arrivals finds out which ids the store gave to the rows of an append, for
// the followers. Ids of a day rise with arrival, and nobody else appends: what
// is new is what has a higher number than all before. It belongs to whoever
// appends.
type arrivals struct {
	store *logstore.Store
	seen  map[logstore.Day]int64 // highest number of the day, as far as it matters; -1: none
}

// span is the time of an append's rows of one day.
type span struct {
	day          logstore.Day
	since, until time.Time
}

func spansOf(batches []logstore.Batch) []span {
	byDay := map[logstore.Day]span{}
	for i := range batches {
		for k := range batches[i].Rows {
			t := batches[i].Rows[k].Record.Time
			day := logstore.DayOf(t)
			sp, ok := byDay[day]
			if !ok {
				sp = span{day, t, t}
			}
			if t.Before(sp.since) {
				sp.since = t
			}
			if t.After(sp.until) {
				sp.until = t
			}
			byDay[day] = sp
		}
	}
	out := make([]span, 0, len(byDay))
	for _, sp := range byDay {
		sp.until = sp.until.Add(time.Microsecond) // it is not part of a query's time
		out = append(out, sp)
	}
	slices.SortFunc(out, func(a, b span) int { return int(a.day) - int(b.day) })
	return out
}

// before notes where the days stand. After an append that failed, what was
// noted stays: some of it may be in.
func (a *arrivals) before(ctx context.Context, spans []span) error {
	for _, sp := range spans {
		if _, known := a.seen[sp.day]; known {
			continue
		}
		highest := int64(-1)
		err := a.store.Each(ctx, logquery.Query{Since: sp.since, Until: sp.until}, func(f logstore.Found) error {
			highest = max(highest, f.ID.Seq)
			return nil
		})
		if err != nil {
			return err
		}
		a.seen[sp.day] = highest
	}
	return nil
}

// after gives what an append brought, in the order of arrival.
func (a *arrivals) after(ctx context.Context, spans []span) ([]logstore.Found, error) {
	var out []logstore.Found
	for _, sp := range spans {
		seen, n := a.seen[sp.day], len(out)
		err := a.store.Each(ctx, logquery.Query{Since: sp.since, Until: sp.until}, func(f logstore.Found) error {
			if f.ID.Seq > seen {
				out = append(out, f)
			}
			return nil
		})
		if err != nil {
			clear(a.seen)
			return nil, err
		}
		part := out[n:]
		if len(part) == 0 {
			// All of it was in before, or the day has begun anew after damage.
			delete(a.seen, sp.day)
			continue
		}
		slices.SortFunc(part, func(x, y logstore.Found) int { return int(x.ID.Seq - y.ID.Seq) })
		a.seen[sp.day] = part[len(part)-1].ID.Seq
	}
	return out, nil
}
