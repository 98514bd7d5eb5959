//! What can go wrong with a template.

/// Why a template is refused, or did not render.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source is too long.
    #[error("the template is too long ({size} bytes, the most is {most})")]
    TooLong {
        /// Its size.
        size: usize,
        /// The most.
        most: usize,
    },
    /// A tag that is never closed.
    #[error("line {line}: `{opened}` is never closed")]
    Unclosed {
        /// The line, from 1.
        line: usize,
        /// What was opened.
        opened: &'static str,
    },
    /// A tag that templates of images do not have here (those that load files, define things …).
    #[error("line {line}: tag `{tag}` is not supported")]
    Tag {
        /// The line, from 1.
        line: usize,
        /// The tag.
        tag: String,
    },
    /// An operator that could make a little text into a lot.
    #[error("line {line}: `*` is not supported")]
    Multiplied {
        /// The line, from 1.
        line: usize,
    },
    /// The engine refused it.
    #[error("cannot render the template")]
    Render {
        /// Why, with the line.
        #[source]
        source: minijinja::Error,
    },
    /// The result is not text.
    #[error("the rendered template is not UTF-8")]
    NotText {
        /// Where it is not.
        #[source]
        source: std::string::FromUtf8Error,
    },
    /// The description of a shipped template cannot be read.
    #[error("cannot read the description of template `{name}`")]
    Describe {
        /// The template.
        name: &'static str,
        /// What is wrong.
        #[source]
        source: serde_yaml::Error,
    },
}
