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
// several days says which was the last of each. With all the ids of the marks it
// misses nothing but what came late for days before the first of them.
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
	first := logstore.DayOf(time.Now()) - markedDays
	var last []logstore.ID
	if err == nil && req.Marks {
		last, err = s.lines.Last(ctx, first)
	}
	release()
	if f != nil {
		defer s.hub.leave(f)
	}
	if err != nil {
		return err
	}
	if req.Marks {
		if err := sendMarks(first, last, send); err != nil {
			return err
		}
	}

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

// sendMarks sends the ids that name what there is, so that whatever else comes
// is new. The first is behind every line of the day before the others.
func sendMarks(first logstore.Day, last []logstore.ID, send func(api.Record) error) error {
	if left := len(last) - (maxSince - 1); left > 0 { // clocks of the future
		last = last[left:]
		first = dayOf(last[0])
	}
	before := logstore.ID{Time: (first - 1).Time().UnixMicro(), Seq: math.MaxInt64 - 1}
	for _, id := range append([]logstore.ID{before}, last...) {
		if err := send(api.Record{Mark: true, ID: id.String(), Time: time.UnixMicro(id.Time).UTC()}); err != nil {
			return err
		}
	}
	return nil
}

// maxSince is how many days a reader may name. Of markedDays before today it is
// told the last line.
const (
	maxSince   = 64
	markedDays = 31
)

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
// there on, and of all others behind the first of them everything, or nothing.
type wanted struct {
	from  marks
	later bool
	first logstore.Day // of from
}

func want(from marks, later bool) wanted {
	return wanted{from, later, slices.Min(slices.Collect(maps.Keys(from)))}
}

func (w wanted) has(id logstore.ID) bool {
	day := dayOf(id)
	if m, ok := w.from[day]; ok {
		return id.Seq >= m.seq
	}
	return w.later && day > w.first
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
