package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"vpnd/pkg/fault"
)

// DefaultPath is where vpnd looks when it is told nothing.
const DefaultPath = "/etc/vpnd/vpnd.toml"

// Load reads and checks the file. A missing file at DefaultPath is the
// default configuration. Every problem is reported at once.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && path == DefaultPath {
		return Default(), nil
	}
	if err != nil {
		return Config{}, fault.Wrap(err, fault.Invalid, "cannot read configuration").
			WithHint("'vpnd config default' prints one to begin with")
	}
	c, err := Parse(data)
	if f, ok := errors.AsType[*fault.Error](err); ok {
		f = f.WithHint("mend %s; 'vpnd config default' prints every key with its default", path)
		f.Message = path + ": " + f.Message
		return c, f
	}
	return c, err
}

// Parse reads and checks a configuration: defaults where it says nothing,
// unknown keys refused.
func Parse(data []byte) (Config, error) {
	c := Default()
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	var problems []fault.Field
	if err := dec.Decode(&c); err != nil {
		var strict *toml.StrictMissingError
		var one *toml.DecodeError
		switch {
		case errors.As(err, &strict):
			for _, e := range strict.Errors {
				row, _ := e.Position()
				problems = append(problems, fault.Field{Path: strings.Join(e.Key(), "."), Message: fmt.Sprintf("unknown key (line %d)", row)})
			}
		case errors.As(err, &one):
			row, col := one.Position()
			path := strings.Join(one.Key(), ".")
			if path == "" {
				path = "line " + strconv.Itoa(row)
			}
			problems = append(problems, fault.Field{Path: path, Message: fmt.Sprintf("%s (line %d, column %d)", one.Error(), row, col)})
			return Config{}, report(problems) // the rest was not read
		default:
			problems = append(problems, fault.Field{Path: "file", Message: err.Error()})
			return Config{}, report(problems)
		}
	}
	problems = append(problems, c.Validate()...)
	if len(problems) > 0 {
		return Config{}, report(problems)
	}
	return c, nil
}

func report(problems []fault.Field) error {
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = p.Path + ": " + p.Message
	}
	noun := "problems"
	if len(problems) == 1 {
		noun = "problem"
	}
	return fault.New(fault.Invalid, "%d %s in the configuration\n  %s", len(problems), noun, strings.Join(lines, "\n  ")).
		WithFields(problems...).WithHint("'vpnd config default' prints every key with its default")
}

// Print writes c as TOML with a comment at every key.
func Print(c Config) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# vpnd configuration. Every key is shown with its value; leave out what you do not change.\n\n")
	enc := toml.NewEncoder(&b)
	enc.SetIndentTables(false)
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	return b.Bytes(), nil
}

func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("%q is not a duration; write 90s, 15m, 36h or 7d", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write 90s, 15m, 36h or 7d", s)
	}
	return d, nil
}
