#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| pg2any_lib::fuzzing::run("mysql_values", data));
