//! A C program of many small files.

use super::program::time_of;
use crate::bench::workload::Workload;
use anyhow::{Result, ensure};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const MAKEFILE: &str = "\
objects = $(patsubst %.c,%.o,$(wildcard *.c))

program: $(objects)
\tcc -o $@ $^

%.o: %.c parts.h
\tcc -O1 -c -o $@ $<
";

/// Writes the sources.
pub(super) fn sources(place: &Path, workload: &Workload) -> Result<()> {
    let (mut header, mut calls) = (String::new(), String::new());
    for part in 0..workload.sources {
        writeln!(header, "int part_{part}(int x);")?;
        writeln!(calls, "    sum += part_{part}(count);")?;
        fs::write(place.join(format!("part_{part}.c")), source(part))?;
    }
    let start = "#include <stdio.h>\n#include \"parts.h\"\n\nint main(int count, char **words)\n{\n    int sum = 0;\n";
    fs::write(
        place.join("main.c"),
        format!("{start}{calls}    printf(\"%s %d\\n\", words[0], sum);\n    return 0;\n}}\n"),
    )?;
    fs::write(place.join("parts.h"), header)?;
    fs::write(place.join("Makefile"), MAKEFILE)?;
    Ok(())
}

fn source(part: usize) -> String {
    let mut text =
        String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include \"parts.h\"\n\n");
    for number in 0..10 {
        text.push_str(&format!(
            "static int step_{number}(int x)\n{{\n    char text[32];\n    snprintf(text, sizeof text, \"%d\", x + {number});\n    \
             return (int) strlen(text) * {part} + abs(x);\n}}\n\n"
        ));
    }
    let sum: Vec<String> = (0..10).map(|number| format!("step_{number}(x)")).collect();
    text.push_str(&format!("int part_{part}(int x)\n{{\n    return {};\n}}\n", sum.join(" + ")));
    text
}

pub(super) fn make(place: &Path, _: &Workload) -> Result<Duration> {
    let elapsed = time_of(Command::new("make").args(["-j2", "--silent"]).current_dir(place))?;
    ensure!(place.join("program").is_file(), "make made no program");
    Ok(elapsed)
}
