// Package logstore keeps log records, one SQLite file a day, and answers
// questions about them: pages of records, counts, groups, histograms.
//
// It owns the day files, how records lie in them (DESIGN.md), which bytes of
// which source file are already in, and retention. It leaves reading log files
// to logtail, the meaning of lines to logline, and the meaning of queries to
// logquery. A Store may be used concurrently: appends queue, queries do not
// wait for them.
package logstore

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/logline"
)

// FileID is one source file, told apart from another that had the same name.
type FileID struct {
	Dev, Ino uint64
	Path     string
}

// Row is a record and where the line ended that it came from.
type Row struct {
	Offset int64 // of the byte after the line
	Record logline.Record

	// Append sets these. A row that is not New was in before, and has no ID. After
	// an append that failed, it is New in the one that succeeds.
	New bool
	ID  ID
}

// Batch is a piece of one source file: all rows of the bytes [From, To), in
// the order of the file.
type Batch struct {
	File     FileID
	From, To int64
	Rows     []Row
}

// Day counts days since 1970-01-01 UTC.
type Day int32

// DayOf is the day that a record of time t belongs to.
func DayOf(t time.Time) Day { return dayOfMicro(t.UnixMicro()) }

// Time is the start of the day.
func (d Day) Time() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// String is the date, as in 2026-01-31.
func (d Day) String() string { return d.Time().Format(time.DateOnly) }

const microsADay = 86400 * 1000 * 1000

func dayOfMicro(us int64) Day { return Day(floorDiv(us, microsADay)) }

func (d Day) start() int64 { return int64(d) * microsADay }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// ID names one record for ever. Its order is the order of pages: time, then
// arrival.
type ID struct {
	Time int64 // microseconds since 1970
	Seq  int64 // arrival within the day
}

// String is the form that ParseID reads, and a page's cursor.
func (id ID) String() string {
	return strconv.FormatInt(id.Time, 36) + "." + strconv.FormatInt(id.Seq, 36)
}

// ParseID reads a cursor.
func ParseID(s string) (ID, error) {
	a, b, _ := strings.Cut(s, ".")
	t, err1 := strconv.ParseInt(a, 36, 64)
	q, err2 := strconv.ParseInt(b, 36, 64)
	if err1 != nil || err2 != nil || q < 0 || (ID{t, q}).String() != s {
		return ID{}, fault.InvalidField("cursor", "%s is no cursor of an earlier page", strconv.Quote(cut(s, 40))).
			WithHint("leave it out to start at the first page")
	}
	return ID{t, q}, nil
}

func (id ID) less(o ID) bool { return id.Time < o.Time || id.Time == o.Time && id.Seq < o.Seq }

func cut(s string, n int) string {
	if len(s) > n {
		return fmt.Sprintf("%s…", strings.ToValidUTF8(s[:n], ""))
	}
	return s
}
