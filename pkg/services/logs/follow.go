package logs

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"

	api "vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

func dayOf(id logstore.ID) logstore.Day { return logstore.DayOf(time.UnixMicro(id.Time)) }

// maxPasses is how often a follower that goes on after an old line reads what
// has come while it was reading, before it counts as slow.
const maxPasses = 20

// follow sends lines as they come, after what came behind the line that the
// reader saw last.
//
// Lines are told apart by arrival, not by time: of the day of that line it is
// what arrived behind it, then all later days. A line that belongs to an
// earlier day and came late, while the reader was away, is not among them.
//
// A reader that is slow is sent what it lags behind from the store. When that is
// more than patience, it is told how many lines it missed and goes on with the
// newest.
func (s *Service) follow(ctx context.Context, req *api.FollowRequest, send func(api.Record) error) error {
	q, err := parse(req.Query)
	if err != nil {
		return err
	}
	var behind marks // the line that the reader saw last
	if req.Since != "" {
		id, err := logstore.ParseID(req.Since)
		if err != nil {
			return fault.InvalidField("query.since_id", "is not the id of a line").WithHint("leave it out to follow new lines only")
		}
		day := dayOf(id)
		behind = marks{day: {id.Seq + 1, day.Time().UnixMicro()}}
	}
	release, err := s.stopAppends(ctx)
	if err != nil {
		return err
	}
	f, err := s.hub.join(q.Matcher())
	release()
	if err != nil {
		return err
	}
	defer s.hub.leave(f)

	if behind != nil {
		if err := s.catchUp(ctx, f, q, want(behind, true), math.MaxUint64, send); err != nil {
			return err
		}
	}
	for {
		lines, lost, again := s.hub.take(f)
		if again {
			if err := s.reread(ctx, f, q, send); err != nil {
				return err
			}
			continue
		}
		for i := range lines {
			r := record(&lines[i])
			if i == 0 {
				r.Missed = lost
			}
			if err := send(r); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.changed:
		}
	}
}

// wanted is what has to be read from the store: of these days what arrived from
// there on, and of all later days everything, or nothing.
type wanted struct {
	from  marks
	later bool
	last  logstore.Day // of from
}

func want(from marks, later bool) wanted {
	return wanted{from, later, slices.Max(slices.Collect(maps.Keys(from)))}
}

func (w wanted) has(id logstore.ID) bool {
	day := dayOf(id)
	if m, ok := w.from[day]; ok {
		return id.Seq >= m.seq
	}
	return w.later && day > w.last
}

func (w wanted) since() time.Time {
	first := int64(math.MaxInt64)
	for _, m := range w.from {
		first = min(first, m.time)
	}
	return time.UnixMicro(first)
}

// reread sends what was too much to be collected.
func (s *Service) reread(ctx context.Context, f *follower, q logquery.Query, send func(api.Record) error) error {
	from, needed, err := s.again(ctx, f, patience)
	if err != nil || !needed {
		return err
	}
	return s.catchUp(ctx, f, q, want(from, false), patience, send)
}

func (s *Service) again(ctx context.Context, f *follower, most uint64) (from marks, needed bool, err error) {
	release, err := s.stopAppends(ctx)
	if err != nil {
		return nil, false, err
	}
	defer release()
	from, needed = s.hub.again(f, most)
	return from, needed, nil
}

// catchUp sends what is in the store already. What arrives meanwhile is
// collected, and read from the store too when it was too much for that, but not
// when it was more than most.
func (s *Service) catchUp(ctx context.Context, f *follower, q logquery.Query, w wanted, most uint64, send func(api.Record) error) error {
	for range maxPasses {
		part := q
		if t := w.since(); part.Since.Before(t) {
			part.Since = t
		}
		err := s.lines.Each(ctx, part, func(l logstore.Found) error {
			if !w.has(l.ID) {
				return nil
			}
			for {
				after, settled := s.hub.arrived(f, l.ID)
				if after {
					return nil
				}
				if settled == nil {
					return send(record(&l))
				}
				select {
				case <-settled:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
		if err != nil {
			return err
		}
		from, needed, err := s.again(ctx, f, most)
		if err != nil || !needed {
			return err
		}
		w = want(from, false)
	}
	return nil
}

// stopAppends waits for the append that is under way, and holds up the next.
func (s *Service) stopAppends(ctx context.Context) (release func(), err error) {
	select {
	case s.appending <- struct{}{}:
		return func() { <-s.appending }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
