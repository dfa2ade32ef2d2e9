//! Compiles the contract, and the types of its errors.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../..";
    let files = ["userprofile/v1/user_profile_service.proto", "google/rpc/error_details.proto"];
    let descriptors =
        protox::compile(files, [format!("{root}/protos"), format!("{root}/build/googleapis")])?;
    println!("cargo::rerun-if-changed={root}/protos");
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names(); // by which the details of errors are told apart
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("protos.rs")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
