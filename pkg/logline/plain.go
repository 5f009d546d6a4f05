package logline

import (
	"strings"
	"time"
)

// plain recognises the time and the level at the beginning of a line that is
// no JSON, where nothing else can be meant:
//
//	2026-01-02 15:04:05,123 [WARN] …    [2026-01-02T15:04:05Z] error: …    panic: …
//	Jan  2 15:04:05 host sshd[7]: …     Jan 02 15:04:05.000 [notice] …     ERROR:root:…
//	time=2026-01-02T15:04:05Z level=WARN msg=…
//	10.0.0.1 - - [02/Jan/2026:15:04:05 +0000] "GET /"
//
// The line itself stays as it is, so nothing is lost when the guess is poor.
func plain(s string, now time.Time) (t time.Time, l Level) {
	s = strings.TrimLeft(s, " \t")
	if strings.HasPrefix(s, "time=") || strings.HasPrefix(s, "ts=") || strings.HasPrefix(s, "level=") {
		return logfmt(s, now)
	}
	rest := strings.TrimPrefix(s, "[")
	when, n, ok := iso(rest)
	if ok = ok && n >= 16; !ok {
		when, n, ok = stamp(rest, now)
	}
	if ok && (n == len(rest) || strings.IndexByte(" \t]:|", rest[n]) >= 0) {
		if Plausible(when, now) {
			t = when
		}
		rest = strings.TrimLeft(rest[n:], " \t]:|-")
	} else {
		t = webServer(s, now)
		rest = s
	}
	bracket := strings.HasPrefix(rest, "[")
	rest = strings.TrimPrefix(rest, "[")
	end := strings.IndexFunc(rest, func(r rune) bool { return !(r|0x20 >= 'a' && r|0x20 <= 'z') })
	if end < 0 {
		end = len(rest)
	}
	word, after := rest[:end], rest[end:]
	switch {
	case bracket && strings.HasPrefix(after, "]"):
	case strings.HasPrefix(after, ": ") || after == ":":
	case word == strings.ToUpper(word) && (after == "" || strings.IndexByte(" \t|:", after[0]) >= 0):
	default:
		return t, Unknown
	}
	return t, wordLevel(strings.ToLower(word))
}

// stamp reads the time of syslog and of tor, and says how long it is. It has no
// year: the latest that is not ahead of now is meant.
func stamp(s string, now time.Time) (t time.Time, n int, ok bool) {
	if len(s) < len(time.Stamp) || s[3] != ' ' || s[6] != ' ' || s[9] != ':' || s[12] != ':' {
		return t, 0, false
	}
	at, err := time.Parse(time.Stamp, s[:len(time.Stamp)])
	if err != nil {
		return t, 0, false
	}
	nsec, n := fraction(s, len(time.Stamp))
	year := now.UTC().Year() + 1
	for y := year; y > year-10; y-- { // a 29th of February may be eight years ago
		t = time.Date(y, at.Month(), at.Day(), at.Hour(), at.Minute(), at.Second(), nsec, time.UTC)
		if t.Day() == at.Day() && Plausible(t, now) {
			return t.Truncate(time.Microsecond), n, true
		}
	}
	return t, 0, false
}

// webServer finds the time where access logs have it.
func webServer(s string, now time.Time) (t time.Time) {
	const layout = "02/Jan/2006:15:04:05 -0700"
	_, s, _ = strings.Cut(s[:min(len(s), 300)], "[")
	if len(s) > len(layout) && s[2] == '/' && s[6] == '/' && s[len(layout)] == ']' {
		if at, ok := ParseTime(s[:len(layout)]); ok && Plausible(at, now) {
			return at
		}
	}
	return t
}

// logfmt reads the time and the level among the first pairs of a line like
// time=… level=… msg=…. A number is no level here: it may count anything.
func logfmt(s string, now time.Time) (t time.Time, l Level) {
	for range 4 {
		key, rest, ok := strings.Cut(s, "=")
		if !ok || strings.ContainsAny(key, " \t\"") {
			break
		}
		value, after, _ := strings.Cut(rest, " ")
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			value, after, _ = strings.Cut(quoted, `"`)
		}
		switch known(key) {
		case "time":
			if at, ok := ParseTime(value); ok && t.IsZero() && Plausible(at, now) {
				t = at
			}
		case "level":
			if n, ok := ParseLevel(value); ok && l == Unknown && !isDigit(value[0]) && value[0] != '-' {
				l = n
			}
		}
		s = strings.TrimLeft(after, " ")
	}
	return t, l
}
