package logline

import (
	"strconv"
	"strings"
	"time"
)

// TimeLayout is how records write their time: of one width, so that text sorts
// as time does.
const TimeLayout = "2006-01-02T15:04:05.000000Z07:00"

// oldest is what no clock of a running machine shows unless it is unset.
var oldest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Plausible reports whether a line written until now can have the time t.
func Plausible(t, now time.Time) bool {
	return !t.Before(oldest) && !t.After(now.Add(24*time.Hour))
}

// otherLayouts are tried after ISO 8601 and numbers.
var otherLayouts = [...]string{
	time.RFC1123Z, time.RFC1123, time.RFC850, time.UnixDate, time.RubyDate, time.ANSIC,
	"02/Jan/2006:15:04:05 -0700", "02 Jan 2006 15:04:05 -0700", "02 Jan 2006 15:04:05",
}

// ParseTime reads a time as log lines write it, to the microsecond, in UTC:
// RFC 3339 and its relatives (a space for T, a comma, no seconds, no zone:
// UTC), seconds, milli-, micro- or nanoseconds since 1970 told apart by size,
// the forms of mail, HTTP and web servers. Names of zones other than UTC and
// GMT mean several things and are refused.
func ParseTime(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if s == "" || len(s) > 64 {
		return time.Time{}, false
	}
	if t, n, ok := iso(s); ok {
		rest := s[n:]
		if rest == "" || strings.LastIndexAny(s[:n], "+-") > 10 && zoneName(rest) {
			return t, true
		}
		return time.Time{}, false
	}
	if t, ok := epoch(s); ok {
		return t, true
	}
	for _, l := range otherLayouts {
		t, err := time.Parse(l, s)
		if err != nil {
			continue
		}
		if name, off := t.Zone(); off == 0 && name != "" && name != "UTC" && name != "GMT" {
			return time.Time{}, false
		}
		return t.UTC().Truncate(time.Microsecond), true
	}
	return time.Time{}, false
}

// zoneName knows what time.Time's own String has after the offset: " CET", and
// " CET m=+0.1".
func zoneName(rest string) bool {
	name, _, _ := strings.Cut(strings.TrimPrefix(rest, " "), " m=")
	if len(rest) < 2 || rest[0] != ' ' || len(name) < 3 || len(name) > 5 {
		return false
	}
	for _, c := range []byte(name) {
		if c < 'A' || c > 'Z' {
			return isDigit(c) || c == '+' || c == '-'
		}
	}
	return true
}

// epoch reads a count since 1970. The sizes do not overlap for the years that
// Plausible allows.
func epoch(s string) (time.Time, bool) {
	if !isDigit(s[0]) || strings.Trim(s, "0123456789.eE+") != "" {
		return time.Time{}, false
	}
	whole, frac, dotted := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || strings.ContainsAny(frac, "eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || f >= 1<<62 {
			return time.Time{}, false
		}
		n, dotted = int64(f), false
	}
	var part int64 // nanoseconds of one unit
	if dotted {
		if frac == "" {
			return time.Time{}, false
		}
		for i := range 9 {
			part *= 10
			if i < len(frac) {
				if !isDigit(frac[i]) {
					return time.Time{}, false
				}
				part += int64(frac[i] - '0')
			}
		}
	}
	var t time.Time
	switch {
	case n < 1e11:
		t = time.Unix(n, part)
	case n < 1e14:
		t = time.UnixMilli(n).Add(time.Duration(part / 1e3))
	case n < 1e17:
		t = time.UnixMicro(n)
	default:
		t = time.Unix(0, n)
	}
	return t.UTC().Truncate(time.Microsecond), true
}

// iso reads a time at the beginning of s and says how long it is.
func iso(s string) (t time.Time, n int, ok bool) {
	if len(s) < 10 || s[4] != s[7] || s[4] != '-' && s[4] != '/' {
		return t, 0, false
	}
	year, ok1 := num(s, 0, 4)
	month, ok2 := num(s, 5, 2)
	day, ok3 := num(s, 8, 2)
	if !ok1 || !ok2 || !ok3 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return t, 0, false
	}
	at := func(h, m, sec, nsec, off int) time.Time {
		return time.Date(year, time.Month(month), day, h, m, sec-off, nsec, time.UTC).Truncate(time.Microsecond)
	}
	if len(s) == 10 {
		return at(0, 0, 0, 0, 0), 10, true
	}
	hour, ok1 := num(s, 11, 2)
	minute, ok2 := num(s, 14, 2)
	if c := s[10]; c != 'T' && c != ' ' && c != 't' || !ok1 || !ok2 || s[13] != ':' || hour > 23 || minute > 59 {
		return t, 0, false
	}
	i, sec, nsec := 16, 0, 0
	if i < len(s) && s[i] == ':' {
		if sec, ok = num(s, i+1, 2); !ok || sec > 60 {
			return t, 0, false
		}
		nsec, i = fraction(s, i+3)
	}
	off, z := zone(s[i:])
	return at(hour, minute, sec, nsec, off), i + z, true
}

// fraction reads what may follow whole seconds at i, and says where it ends.
func fraction(s string, i int) (nsec, end int) {
	if i+1 < len(s) && (s[i] == '.' || s[i] == ',') && isDigit(s[i+1]) {
		i++
		for unit := int(1e8); i < len(s) && isDigit(s[i]); i++ {
			nsec += int(s[i]-'0') * unit
			unit /= 10
		}
	}
	return nsec, i
}

// zone reads Z, UTC, GMT or an offset, with a space before it or not; seconds
// east, and how long it is: 0 when there is none.
func zone(s string) (seconds, n int) {
	if strings.HasPrefix(s, "Z") || strings.HasPrefix(s, "z") {
		return 0, 1
	}
	if strings.HasPrefix(s, " ") {
		s, n = s[1:], 1
	}
	if strings.HasPrefix(s, "UTC") || strings.HasPrefix(s, "GMT") {
		return 0, n + 3
	}
	if s == "" || s[0] != '+' && s[0] != '-' {
		return 0, 0
	}
	h, ok := num(s, 1, 2)
	if !ok || h > 24 {
		return 0, 0
	}
	n, m := n+3, 0
	if i := strings.TrimPrefix(s[3:], ":"); i != "" {
		if v, ok := num(i, 0, 2); ok && v < 60 {
			m = v
			n += len(s[3:]) - len(i) + 2
		}
	}
	seconds = h*3600 + m*60
	if s[0] == '-' {
		seconds = -seconds
	}
	return seconds, n
}

// num reads exactly n digits at i.
func num(s string, i, n int) (v int, ok bool) {
	if i+n > len(s) {
		return 0, false
	}
	for ; n > 0; n-- {
		if !isDigit(s[i]) {
			return 0, false
		}
		v = v*10 + int(s[i]-'0')
		i++
	}
	return v, true
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
