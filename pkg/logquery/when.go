package logquery

import (
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/logline"
)

// timeLayout of canonical queries.
const timeLayout = logline.TimeLayout

const timeHint = "write 15m, 1h30m, 7d, now, today, yesterday, 2026-01-31, 21:30, 2026-01-31T21:30 or RFC 3339"

// bound reads since=… and until=….
func (p *parser) bound(t Term, word string, equal bool, opAt int) *Error {
	if !equal || t.Not {
		return p.fail(opAt, "only "+word+"=…; swap since and until for the other side", "%s has no other form than =", word)
	}
	from, _, err := p.when()
	if err != nil {
		return err
	}
	if word == "since" {
		p.narrow(from, time.Time{})
	} else {
		p.narrow(time.Time{}, from)
	}
	return nil
}

// timeTerm reads time=DAY and the comparisons of time, which are bounds too.
func (p *parser) timeTerm(t Term, opAt int) *Error {
	if t.Not {
		return p.fail(opAt, "leave a range out by two queries, one until and one since", "a time cannot be negated")
	}
	at := p.i
	from, to, err := p.when()
	if err != nil {
		return err
	}
	switch t.Op {
	case Equal:
		if to.IsZero() {
			return p.fail(at, "time= takes a whole day: today, yesterday, 2026-01-31; else since=… until=…", "a moment, not a day")
		}
		p.narrow(from, to)
	case Less:
		p.narrow(time.Time{}, from)
	case LessEqual:
		p.narrow(time.Time{}, from.Add(time.Microsecond))
	case Greater:
		p.narrow(from.Add(time.Microsecond), time.Time{})
	default:
		p.narrow(from, time.Time{})
	}
	return nil
}

// narrow makes the range of the query smaller, never wider: terms are joined
// by and.
func (p *parser) narrow(from, to time.Time) {
	if !from.IsZero() && from.After(p.q.Since) {
		p.q.Since = from
	}
	if !to.IsZero() && (p.q.Until.IsZero() || to.Before(p.q.Until)) {
		p.q.Until = to
	}
}

// emptyRange refuses what no record can match, at the last of the times.
func (p *parser) emptyRange() *Error {
	if p.q.Since.IsZero() || p.q.Until.IsZero() || p.q.Since.Before(p.q.Until) {
		return nil
	}
	return p.fail(p.timeAt, "since must be before until", "the times leave nothing: since %s, until %s", p.q.Since.Format(timeLayout), p.q.Until.Format(timeLayout))
}

// when reads one time; for a day also its end.
func (p *parser) when() (from, to time.Time, _ *Error) {
	at := p.i
	p.timeAt = at
	v, err := p.value(false)
	if err != nil {
		return from, to, err
	}
	if err := p.count(at); err != nil {
		return from, to, err
	}
	from, to, ok := p.moment(v.text)
	if !ok || v.prefix {
		return from, to, p.fail(at, timeHint, "%q is not a time", clip(v.text))
	}
	if p.i < len(p.s) && p.s[p.i] == ',' {
		return from, to, p.fail(p.i, "give one time", "a list of times")
	}
	if y := from.Year(); y < 1970 || y > 2199 {
		return from, to, p.fail(at, timeHint, "%q is outside the years 1970 to 2199", clip(v.text))
	}
	return from, to, nil
}

func (p *parser) moment(s string) (from, to time.Time, ok bool) {
	utc := func(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
	if s == "now" {
		return utc(p.now), to, true
	}
	if d, ok := ago(s); ok {
		return utc(p.now.Add(-d)), to, true
	}
	for _, layout := range [...]string{time.RFC3339Nano, "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, strings.Replace(s, " ", "T", 1)); err == nil {
			return utc(t), to, true
		}
	}
	day, clock, both := strings.Cut(strings.Replace(s, "T", " ", 1), " ")
	y, m, d := p.now.In(p.loc).Date()
	switch t, err := time.Parse(time.DateOnly, day); {
	case err == nil:
		y, m, d = t.Date()
	case day == "yesterday":
		d--
	case day == "today":
	case !both:
		clock, both = day, true
	default:
		return from, to, false
	}
	if !both {
		return utc(time.Date(y, m, d, 0, 0, 0, 0, p.loc)), utc(time.Date(y, m, d+1, 0, 0, 0, 0, p.loc)), true
	}
	for _, layout := range [...]string{"15:04", "15:04:05"} {
		if c, err := time.Parse(layout, clock); err == nil {
			return utc(time.Date(y, m, d, c.Hour(), c.Minute(), c.Second(), c.Nanosecond(), p.loc)), to, true
		}
	}
	return from, to, false
}

// ago reads 90s, 1h30m, 7d, 2w: whole numbers with units, up to 100 years.
func ago(s string) (time.Duration, bool) {
	const most = 100 * 365 * 24 * time.Hour
	var sum time.Duration
	for s != "" {
		i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
		if i <= 0 {
			return 0, false
		}
		n, err := strconv.ParseInt(s[:i], 10, 64)
		if err != nil {
			return 0, false
		}
		var unit time.Duration
		switch s[i] {
		case 's':
			unit = time.Second
		case 'm':
			unit = time.Minute
		case 'h':
			unit = time.Hour
		case 'd':
			unit = 24 * time.Hour
		case 'w':
			unit = 7 * 24 * time.Hour
		default:
			return 0, false
		}
		if n > int64(most/unit) {
			return 0, false
		}
		if sum += time.Duration(n) * unit; sum > most {
			return 0, false
		}
		s = s[i+1:]
	}
	return sum, sum > 0
}
