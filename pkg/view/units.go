package view

import (
	"fmt"
	"math"
	"time"
)

// Bytes writes a size with three digits at most: 0 B, 999 B, 1.5 KiB, 23 MiB.
func Bytes(n int64) string {
	if n < 0 {
		return "-" + Bytes(-max(n, -math.MaxInt64))
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v := float64(n) / 1024
	i := 0
	for ; v >= 999.5 && i < len(units)-1; i++ {
		v /= 1024
	}
	if v < 9.95 {
		return fmt.Sprintf("%.1f %s", v, units[i])
	}
	return fmt.Sprintf("%.0f %s", v, units[i])
}

// Duration writes the largest unit, and the next where it matters: 0s, 42s,
// 3m, 1h 20m, 5h, 2d 4h, 90d.
func Duration(d time.Duration) string {
	if d < 0 {
		return "-" + Duration(-max(d, -math.MaxInt64))
	}
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d/time.Minute))
	case d < 24*time.Hour:
		return two(int(d/time.Hour), "h", int(d%time.Hour/time.Minute), "m")
	default:
		day := 24 * time.Hour
		return two(int(d/day), "d", int(d%day/time.Hour), "h")
	}
}

// two leaves out what no longer matters from ten units up.
func two(a int, unitA string, b int, unitB string) string {
	if b == 0 || a >= 10 {
		return fmt.Sprintf("%d%s", a, unitA)
	}
	return fmt.Sprintf("%d%s %d%s", a, unitA, b, unitB)
}

// Ago writes a time in the past as seen from now; clocks that differ by a
// little do not make it the future.
func Ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := now.Sub(t)
	switch {
	case d < -2*time.Second:
		return "in " + Duration(-d)
	case d < time.Second:
		return "now"
	}
	return Duration(d) + " ago"
}

// Until writes a time in the future as seen from now.
func Until(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	if d := t.Sub(now); d > 0 {
		return "in " + Duration(d)
	}
	return "now"
}

// Count writes a number with its noun.
func Count(n int, one, many string) string {
	switch n {
	case 0:
		return "no " + many
	case 1:
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
