package logstore

import (
	"database/sql/driver"
	"testing"
)

// SetChunkRows makes chunks small, so that few rows are many of them, and what is
// written at once too. It is for a store that nothing was appended to yet.
func (s *Store) SetChunkRows(n int) { s.chunkRows, s.layLeaves = n, 3 }

// SetQuiet says after how many seconds a day counts as quiet.
func (s *Store) SetQuiet(ticks int) {
	<-s.turn
	defer s.pass()
	s.quietTicks = ticks
}

// Chunks gives how many chunks each segment has.
func (s *Store) Chunks(t testing.TB) (out []int) {
	t.Helper()
	for _, d := range s.dayList(minMicro, maxMicro) {
		_, err := s.readDay(t.Context(), d, func(c *conn) error {
			return c.each(segmentQuery, func(r []driver.Value) error {
				seg, err := readSegment(r)
				if err == nil {
					out = append(out, len(seg.chunks))
				}
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}
