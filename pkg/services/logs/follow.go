package logs

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"
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
// what arrived behind it, then all later days. A reader that has seen lines of
// several days says which was the last of each; what came late for a day that
// it does not name is not among them.
//
// A reader that is slow is sent what it lags behind from the store. When that is
// more than patience, it is told how many lines it missed and goes on with the
// newest.
func (s *Service) follow(ctx context.Context, req *api.FollowRequest, send func(api.Record) error) error {
	q, err := parse(req.Query)
	if err != nil {
		return err
	}
	behind, err := marksOf(req.Since)
	if err != nil {
		return err
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

	if len(behind) > 0 {
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

// maxSince is how many days a reader may name.
const maxSince = 8

// marksOf reads the ids of the lines that a reader saw last.
func marksOf(since string) (marks, error) {
	if since == "" {
		return nil, nil
	}
	ids := strings.Split(since, ",")
	if len(ids) > maxSince {
		return nil, fault.InvalidField("query.since_id", "names %d lines; %d are the most", len(ids), maxSince).WithHint("name those of the newest days")
	}
	out := marks{}
	for _, text := range ids {
		id, err := logstore.ParseID(text)
		if err != nil {
			return nil, fault.InvalidField("query.since_id", "%q is not the id of a line", text).WithHint("leave it out to follow new lines only")
		}
		day := dayOf(id)
		out[day] = mark{max(out[day].seq, id.Seq+1), day.Time().UnixMicro()}
	}
	return out, nil
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
		if err := s.sendStored(ctx, f, q, w, send); err != nil {
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

// sendStored sends in the order of arrival, so that a reader that goes away in
// between can go on behind the last line it got. The store gives lines by time;
// what does not fit into memory at once is read again.
func (s *Service) sendStored(ctx context.Context, f *follower, q logquery.Query, w wanted, send func(api.Record) error) error {
	leave, err := s.catching.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if t := w.since(); q.Since.Before(t) {
		q.Since = t
	}
	last := logstore.ID{Time: math.MinInt64}
	for {
		batch := earliest{most: s.batch}
		err := s.lines.Each(ctx, q, func(l logstore.Found) error {
			if !w.has(l.ID) || !arrivedBefore(last, l.ID) {
				return nil
			}
			after, err := s.cameAfter(ctx, f, l.ID)
			if err != nil || after {
				return err
			}
			batch.add(l)
			return nil
		})
		if err != nil {
			return err
		}
		lines := batch.take()
		for i := range lines {
			if err := send(record(&lines[i])); err != nil {
				return err
			}
		}
		if !batch.more {
			return nil
		}
		last = lines[len(lines)-1].ID
	}
}

// cameAfter tells whether the follower gets a line from the hub.
func (s *Service) cameAfter(ctx context.Context, f *follower, id logstore.ID) (bool, error) {
	for {
		after, settled := s.hub.arrived(f, id)
		if settled == nil {
			return after, nil
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
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
