package logstore

import (
	"container/list"
	"slices"
	"strings"
	"sync"
)

// headCache bounds the decoded rows that are in no segment yet, in bytes. Their
// text in lower case, once it was searched, adds about a third.
const headCache = 14 << 20

// cache keeps decoded minis, which never change. It is shared by writing,
// sealing and queries.
type cache struct {
	mu    sync.Mutex
	limit int
	size  int
	order *list.List // of *cached, most recently used first
	byKey map[cacheKey]*list.Element
}

type cacheKey struct {
	d  *day
	no int64
}

type cached struct {
	key  cacheKey
	rows []row
	size int
	text func() *haystack
}

// haystack is all text of a mini in lower case, so that a word that stands in
// few of its rows is found without cutting them all into words.
type haystack struct {
	text string
	ends []int // of each row
}

func newHaystack(rows []row) *haystack {
	var b strings.Builder
	ends := make([]int, len(rows))
	for i := range rows {
		for v := range rows[i].rec.Texts() {
			b.WriteString(strings.ToLower(v)) // as tokens are folded
			b.WriteByte(0)                    // in no token
		}
		ends[i] = b.Len()
	}
	return &haystack{b.String(), ends}
}

// rows calls fn for each row that has the needle.
func (h *haystack) rows(needle string, fn func(i int) error) error {
	for at := 0; ; {
		n := strings.Index(h.text[at:], needle)
		if n < 0 {
			return nil
		}
		i, _ := slices.BinarySearch(h.ends, at+n+1)
		if err := fn(i); err != nil {
			return err
		}
		at = h.ends[i]
	}
}

func newCache(limit int) *cache {
	return &cache{limit: limit, order: list.New(), byKey: map[cacheKey]*list.Element{}}
}

func (c *cache) get(d *day, no int64) []row {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[cacheKey{d, no}]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).rows
}

// haystack gives the text of a mini that is in the cache.
func (c *cache) haystack(d *day, no int64) *haystack {
	c.mu.Lock()
	e := c.byKey[cacheKey{d, no}]
	c.mu.Unlock()
	if e == nil {
		return nil
	}
	return e.Value.(*cached).text()
}

func (c *cache) put(d *day, no int64, rows []row, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := cacheKey{d, no}
	if c.byKey[key] != nil || size > c.limit {
		return
	}
	c.byKey[key] = c.order.PushFront(&cached{key, rows, size, sync.OnceValue(func() *haystack { return newHaystack(rows) })})
	c.size += size
	for c.size > c.limit {
		c.dropLocked(c.order.Back())
	}
}

func (c *cache) drop(d *day, no int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[cacheKey{d, no}]; e != nil {
		c.dropLocked(e)
	}
}

func (c *cache) dropLocked(e *list.Element) {
	v := e.Value.(*cached)
	c.order.Remove(e)
	delete(c.byKey, v.key)
	c.size -= v.size
}

// rows gives the rows of a mini, which must not be changed.
func (s *Store) rows(d *day, c *conn, no int64) ([]row, error) {
	if rows := s.cache.get(d, no); rows != nil {
		return rows, nil
	}
	blob, err := c.blob("SELECT data FROM mini WHERE no=?", no)
	if err != nil {
		return nil, err
	}
	rows, err := decodeMini(blob)
	if err != nil {
		return nil, err
	}
	size := 0
	for i := range rows {
		size += rowSize(&rows[i].rec)
	}
	s.cache.put(d, no, rows, size)
	return rows, nil
}
