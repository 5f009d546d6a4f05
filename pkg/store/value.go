package store

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"reflect"
	"time"
)

// FromTime is how times are stored: integer microseconds since 1970, UTC. The
// zero time is 0, so the instant 1970-01-01T00:00:00Z itself cannot be told
// from it.
func FromTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time reads what FromTime wrote; the result is in UTC.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

func bindArgs(args []any) ([]driver.NamedValue, error) {
	if len(args) == 0 {
		return nil, nil
	}
	named := make([]driver.NamedValue, len(args))
	for i, a := range args {
		v, err := bindValue(a)
		if err != nil {
			return nil, fmt.Errorf("parameter %d: %w", i+1, err)
		}
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return named, nil
}

// bindValue maps a Go value to one of SQLite's: integers, bools, floats,
// strings, byte slices, types based on these, pointers to them (nil is NULL),
// time.Time (see FromTime), time.Duration (nanoseconds) and driver.Valuer.
func bindValue(a any) (driver.Value, error) {
	switch v := a.(type) {
	case nil:
		return nil, nil
	case string, int64, float64, bool, []byte:
		return v, nil
	case int:
		return int64(v), nil
	case time.Time:
		return FromTime(v), nil
	case *time.Time:
		if v == nil {
			return nil, nil
		}
		return FromTime(*v), nil
	}
	rv := reflect.ValueOf(a)
	if rv.Kind() == reflect.Pointer && rv.IsNil() {
		return nil, nil
	}
	if v, ok := a.(driver.Valuer); ok {
		inner, err := v.Value()
		if err != nil {
			return nil, err
		}
		if t, ok := inner.(time.Time); ok {
			return FromTime(t), nil
		}
		return inner, nil
	}
	switch rv.Kind() {
	case reflect.Pointer:
		return bindValue(rv.Elem().Interface())
	case reflect.String:
		return rv.String(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return rv.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if rv.Uint() > math.MaxInt64 {
			return nil, fmt.Errorf("%d does not fit SQLite's integers", rv.Uint())
		}
		return int64(rv.Uint()), nil
	case reflect.Bool:
		return rv.Bool(), nil
	case reflect.Float32, reflect.Float64:
		return rv.Float(), nil
	case reflect.Slice:
		if rv.Type().Elem().Kind() == reflect.Uint8 {
			return rv.Bytes(), nil
		}
	}
	return nil, fmt.Errorf("type %T cannot be stored", a)
}

// scanValue is the reverse of bindValue. A NULL goes into a pointer to a
// pointer, a *[]byte, or a sql.Scanner such as sql.Null. Numbers are checked
// for range; text is never parsed into numbers.
func scanValue(dest any, v driver.Value) error {
	switch d := dest.(type) {
	case *string:
		if s, ok := v.(string); ok {
			*d = s
			return nil
		}
	case *int64:
		if n, ok := v.(int64); ok {
			*d = n
			return nil
		}
	case *[]byte:
		if v == nil {
			*d = nil
			return nil
		}
	case *time.Time:
		if n, ok := v.(int64); ok {
			*d = Time(n)
			return nil
		}
		return mismatch(dest, v)
	case *any:
		*d = v
		return nil
	case sql.Scanner:
		return d.Scan(v)
	}
	p := reflect.ValueOf(dest)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("cannot scan into %T: not a pointer", dest)
	}
	e := p.Elem()
	if e.Kind() == reflect.Pointer {
		if v == nil {
			e.SetZero()
			return nil
		}
		e.Set(reflect.New(e.Type().Elem()))
		return scanValue(e.Interface(), v)
	}
	if !scanKind(e, v) {
		return mismatch(dest, v)
	}
	return nil
}

func scanKind(e reflect.Value, v driver.Value) bool {
	switch e.Kind() {
	case reflect.String:
		switch s := v.(type) {
		case string:
			e.SetString(s)
			return true
		case []byte:
			e.SetString(string(s))
			return true
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n, ok := v.(int64); ok && !e.OverflowInt(n) {
			e.SetInt(n)
			return true
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n, ok := v.(int64); ok && n >= 0 && !e.OverflowUint(uint64(n)) {
			e.SetUint(uint64(n))
			return true
		}
	case reflect.Bool:
		switch b := v.(type) {
		case bool: // a column declared BOOLEAN
			e.SetBool(b)
			return true
		case int64:
			e.SetBool(b != 0)
			return true
		}
	case reflect.Float32, reflect.Float64:
		switch f := v.(type) {
		case float64:
			e.SetFloat(f)
			return true
		case int64:
			e.SetFloat(float64(f))
			return true
		}
	case reflect.Slice:
		if e.Type().Elem().Kind() != reflect.Uint8 {
			return false
		}
		switch b := v.(type) {
		case []byte:
			e.SetBytes(b)
			return true
		case string:
			e.SetBytes([]byte(b))
			return true
		}
	}
	return false
}

func mismatch(dest any, v driver.Value) error {
	switch v := v.(type) {
	case nil:
		return fmt.Errorf("cannot scan NULL into %T", dest)
	case int64:
		return fmt.Errorf("cannot scan integer %d into %T", v, dest)
	}
	return fmt.Errorf("cannot scan %T into %T", v, dest)
}
