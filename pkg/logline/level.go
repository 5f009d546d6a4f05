package logline

import (
	"strconv"
	"strings"
)

// Level is how grave a line is. Levels compare by rank; Unknown is no level
// and is outside every comparison.
type Level int8

// The levels in rising order.
const (
	Unknown Level = iota
	Trace
	Debug
	Info
	Warn
	Error
	Fatal
)

// Levels are the names that ParseLevel and String agree on, in rising order.
var Levels = [...]string{"trace", "debug", "info", "warn", "error", "fatal"}

// String is the name in lower case, and empty for Unknown.
func (l Level) String() string {
	if l < Trace || l > Fatal {
		return ""
	}
	return Levels[l-Trace]
}

// ParseLevel reads the usual words in any case (those of syslog among them),
// the forms of slog ("INFO+2"), and the numbers of slog (-8 to 9) and bunyan
// (10 to 69). The two overlap from 10 on, where bunyan wins: slog writes words.
func ParseLevel(s string) (Level, bool) {
	s = strings.TrimSpace(s)
	if s == "" || len(s) > 24 {
		return Unknown, false
	}
	if c := s[0]; c == '-' || c >= '0' && c <= '9' {
		n, err := strconv.Atoi(s)
		if err != nil {
			return Unknown, false
		}
		return numberLevel(n)
	}
	word, off := s, 0
	if i := strings.IndexAny(s, "+-"); i > 0 {
		n, err := strconv.Atoi(s[i:])
		if err != nil || n < -99 || n > 99 {
			return Unknown, false
		}
		word, off = s[:i], n
	}
	l := wordLevel(word)
	if l == Unknown {
		l = wordLevel(strings.ToLower(word))
	}
	if l == Unknown || off == 0 {
		return l, l != Unknown
	}
	if l < Debug || l > Error {
		return Unknown, false // slog counts from these four only
	}
	return slogLevel((int(l)-int(Info))*4 + off), true
}

func wordLevel(s string) Level {
	switch s {
	case "trace", "TRACE", "trc", "verbose":
		return Trace
	case "debug", "DEBUG", "dbg":
		return Debug
	case "info", "INFO", "inf", "information", "informational", "notice":
		return Info
	case "warn", "WARN", "warning", "WARNING", "wrn":
		return Warn
	case "error", "ERROR", "err", "severe":
		return Error
	case "fatal", "FATAL", "critical", "CRITICAL", "crit", "alert", "emerg", "emergency", "panic", "dpanic":
		return Fatal
	}
	return Unknown
}

func numberLevel(n int) (Level, bool) {
	switch {
	case n < -8 || n >= 70:
		return Unknown, false
	case n < 10:
		return slogLevel(n), true
	}
	return Level(n / 10), true
}

func slogLevel(n int) Level {
	switch {
	case n < -4:
		return Trace
	case n < 0:
		return Debug
	case n < 4:
		return Info
	case n < 8:
		return Warn
	}
	return Error
}
