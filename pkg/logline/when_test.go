package logline_test

import (
	"testing"
	"time"

	"vpnd/pkg/logline"
)

func TestParseTime(t *testing.T) {
	want := at("2026-03-01T11:59:58Z")
	for _, s := range []string{
		"2026-03-01T11:59:58Z", "2026-03-01t11:59:58z", "2026-03-01 11:59:58", "2026-03-01T12:59:58+01:00", "2026-03-01T12:59:58+0100", "2026-03-01 12:59:58 +01", "2026/03/01 11:59:58", "2026-03-01 11:59:58 UTC",
		"2026-03-01 12:59:58 +0100 CET", "2026-03-01 11:59:58 +0000 UTC m=+0.123", "2026-03-01 12:59:58 +0100 +0100", "1772366398", "1772366398000", "1772366398000000", "1772366398000000000", "1.772366398e9", " 1772366398.0000001 ",
		"Sun, 01 Mar 2026 11:59:58 GMT", "Sun, 01 Mar 2026 12:59:58 +0100", "01/Mar/2026:12:59:58 +0100", "Sun Mar  1 11:59:58 UTC 2026", "Sun Mar  1 11:59:58 2026",
	} {
		if got, ok := logline.ParseTime(s); !ok || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%q gives %v, %v", s, got, ok)
		}
	}
	for s, want := range map[string]string{
		"2026-03-01": "2026-03-01T00:00:00Z", "2026-03-01 11:59": "2026-03-01T11:59:00Z", "2026-03-01T11:59:58,1234569": "2026-03-01T11:59:58.123456Z", "1772366398.25": "2026-03-01T11:59:58.25Z", "1772366398123.5": "2026-03-01T11:59:58.1235Z",
		"946684800000000": "2000-01-01T00:00:00Z", "2024-02-29T23:59:60Z": "2024-03-01T00:00:00Z",
	} {
		if got, ok := logline.ParseTime(s); !ok || !got.Equal(at(want)) {
			t.Errorf("%q gives %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{
		"", "x", "-1", "+5", "NaN", "Inf", "1e400", "0x10", "1_000", "2026-02-29", "2026-13-01", "2026-03-01T24:00:00Z", "2026-03-01T11:60:00Z", "2026-03-01T11:59:58 PST", "Sun Mar  1 11:59:58 PST 2026",
		"2026-03-01T11:59:58Z and more", "1.", "1.x", "2026-03/01", "1+1", "1_000.5", "1e", "1.5.5",
	} {
		if got, ok := logline.ParseTime(s); ok {
			t.Errorf("%q gives %v", s, got)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2026-03-01T11:59:58.123Z", "2024-02-29T23:59:59+23:59", "0000-01-01T00:00:00-00:01", "9999-12-31T23:59:59.999999999Z", "1772366398", "Sun, 01 Mar 2026 11:59:58 GMT", "1e18", "2026-03-01 12:59:58 +0100 CET"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := logline.ParseTime(s)
		if ok && (got.Location() != time.UTC || got.Nanosecond()%1000 != 0) {
			t.Errorf("%q gives %v", s, got)
		}
		want, err := time.Parse(time.RFC3339Nano, s)
		if err != nil || len(s) < 20 || len(s) > 64 || s[13] != ':' {
			return // time.Parse takes hours of one digit
		}
		if !ok || !got.Equal(want.Truncate(time.Microsecond)) {
			t.Errorf("%q gives %v, %v; want %v", s, got, ok, want)
		}
	})
}

func TestPlausible(t *testing.T) {
	for s, want := range map[string]bool{"1999-12-31T23:59:59Z": false, "2000-01-01T00:00:00Z": true, "2026-03-02T12:00:00Z": true, "2026-03-02T12:00:01Z": false} {
		if got := logline.Plausible(at(s), now); got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
}

func TestParseLevel(t *testing.T) {
	for s, want := range map[string]logline.Level{
		"trace": logline.Trace, "DEBUG-4": logline.Trace, "-8": logline.Trace, "10": logline.Trace, "Debug": logline.Debug, "-4": logline.Debug, "20": logline.Debug, "INFO+2": logline.Info, "notice": logline.Info, "0": logline.Info, "30": logline.Info,
		" warning ": logline.Warn, "INFO+4": logline.Warn, "4": logline.Warn, "40": logline.Warn, "err": logline.Error, "ERROR+4": logline.Error, "8": logline.Error, "50": logline.Error, "crit": logline.Fatal, "60": logline.Fatal, "EMERG": logline.Fatal,
	} {
		if got, ok := logline.ParseLevel(s); got != want || !ok {
			t.Errorf("%q is %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "x", "-9", "70", "9999999999999999999", "INFO+", "INFO+x", "FATAL+1", "+4", "INFO+999", "1.5"} {
		if got, ok := logline.ParseLevel(s); ok {
			t.Errorf("%q is %v", s, got)
		}
	}
	for _, name := range logline.Levels {
		if l, ok := logline.ParseLevel(name); !ok || l.String() != name {
			t.Errorf("%q is %v", name, l)
		}
	}
	if logline.Unknown.String() != "" || logline.Level(99).String() != "" {
		t.Error("no level has no name")
	}
}
