package logstore

import (
	"database/sql/driver"
	"strings"
)

// reading is what the parts that are read from one connection share.
type reading struct {
	c      *conn
	keys   map[string]int
	shapes map[string]shape
}

func newReading(c *conn) (*reading, error) {
	keys, err := readKeys(c)
	return &reading{c, keys, map[string]shape{}}, err
}

// part is columns of the same rows: those of a chunk, each read when it is
// needed, or those of a block, which are one blob.
type part struct {
	*reading
	n      int
	whole  *chunk // nil: a block
	cols   []placed
	shaped []shape // by code of the shape column
}

type placed struct {
	col  int
	body string
	c    *column // nil until it is needed, and when the part does not have it
}

func (rd *reading) chunk(ch *chunk) *part { return &part{reading: rd, n: ch.n, whole: ch} }

func (rd *reading) block(ch *chunk, no int) (*part, int, error) {
	blob, err := rd.c.blob("SELECT data FROM block WHERE id=?", blockID(ch.no, no))
	if err != nil {
		return nil, 0, err
	}
	body, err := openFrame(blob)
	if err != nil {
		return nil, 0, err
	}
	from, to := ch.span(no)
	p := &part{reading: rd, n: to - from, cols: make([]placed, 0, 24)}
	r := reader{b: body}
	for r.left() > 0 && !r.bad {
		p.cols = append(p.cols, placed{col: r.int(), body: r.string()})
	}
	if r.bad {
		return nil, 0, errDamaged
	}
	return p, len(blob), nil
}

// column gives a column that the part may not have: then it is nil.
func (p *part) column(col int) (*column, error) {
	for i := range p.cols {
		if at := &p.cols[i]; at.col == col {
			if at.c == nil && at.body != "" {
				var err error
				if at.c, err = p.open(col, at.body); err != nil {
					return nil, err
				}
			}
			if at.c == nil && col <= colShape {
				return nil, errDamaged
			}
			return at.c, nil
		}
	}
	at := placed{col: col}
	if p.whole != nil {
		blob, err := p.c.blob("SELECT data FROM col WHERE id=?", columnID(p.whole.no, col))
		if err != nil {
			return nil, err
		}
		if blob != nil {
			if at.body, err = openFrame(blob); err != nil {
				return nil, err
			}
			if at.c, err = p.open(col, at.body); err != nil {
				return nil, err
			}
		}
	}
	if at.c == nil && col <= colShape {
		return nil, errDamaged
	}
	p.cols = append(p.cols, at)
	return at.c, nil
}

func (p *part) open(col int, body string) (*column, error) {
	c, err := openColumn(body)
	if err != nil || col < colShape && c.form != formInts || col != colRest && col < colKey && c.n != p.n {
		return nil, errDamaged
	}
	return c, nil
}

// slot reads a column that every block has, and a chunk unless it is wide.
func (p *part) slot(slot int) (*column, error) {
	c, err := p.column(colSlot + slot)
	if err == nil && c == nil {
		err = errDamaged
	}
	return c, err
}

// shape reads the shapes of the rows.
func (p *part) shape() (*column, []shape, error) {
	c, err := p.column(colShape)
	if err != nil || p.shaped != nil {
		return c, p.shaped, err
	}
	shapes := make([]shape, c.count())
	for i := range shapes {
		text := c.val(i)
		one, ok := p.shapes[text]
		if !ok {
			text = strings.Clone(text) // records keep its keys, which must not keep the blob
			if one, err = parseShape(text); err != nil {
				return nil, nil, err
			}
			if len(p.shapes) < 1000 {
				p.shapes[text] = one
			}
		}
		shapes[i] = one
	}
	p.shaped = shapes
	return c, shapes, nil
}

// streamOf is the column that a field's values are in.
func (p *part) streamOf(key string) (int, *column, error) {
	if col, ok := p.keys[key]; ok {
		c, err := p.column(col)
		if err != nil || c != nil {
			return col, c, err
		}
	}
	c, err := p.column(colRest)
	if err == nil && c == nil {
		err = errDamaged
	}
	return colRest, c, err
}

func readKeys(c *conn) (map[string]int, error) {
	keys := map[string]int{}
	err := c.each("SELECT col, name FROM key", func(r []driver.Value) error {
		name, ok := r[1].(string)
		if !ok {
			return errDamaged
		}
		keys[name] = int(integer(r[0]))
		return nil
	})
	return keys, err
}
