package logstore

import "context"

// Last gives, of each day from first on that has had records, an id with the
// number of the one that arrived last.
func (s *Store) Last(ctx context.Context, first Day) ([]ID, error) {
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer s.pass()
	var out []ID
	for _, d := range s.dayList(first.start(), maxMicro) {
		if d.nextSeq > 0 {
			out = append(out, ID{Time: d.date.start(), Seq: d.nextSeq - 1})
		}
	}
	return out, nil
}
