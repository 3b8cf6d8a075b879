# The public names of this package: the only list of them. `__init__.py` reads it.

from nag.attention.text.negative_text import NegativeText as NegativeText
from nag.coverage import Coverage as Coverage
from nag.errors import AlreadyInstalledError as AlreadyInstalledError
from nag.errors import ForeignCallError as ForeignCallError
from nag.errors import GuidedCopyError as GuidedCopyError
from nag.errors import InstallationError as InstallationError
from nag.errors import NagCoverageError as NagCoverageError
from nag.errors import NagError as NagError
from nag.errors import NagParameterError as NagParameterError
from nag.errors import NagTextError as NagTextError
from nag.errors import UnnamedCallError as UnnamedCallError
from nag.errors import UnsupportedCallError as UnsupportedCallError
from nag.errors import UnsupportedPipelineError as UnsupportedPipelineError
from nag.errors import UnsupportedProcessorError as UnsupportedProcessorError
from nag.formulas.negative_away_steer_attention import (
    negative_away_steer_attention as negative_away_steer_attention,
)
from nag.formulas.normalized_attention_guidance import (
    normalized_attention_guidance as normalized_attention_guidance,
)
from nag.formulas.value_sign_flip import value_sign_flip as value_sign_flip
from nag.installation.installation import InstalledGuidance as InstalledGuidance
from nag.installation.installation import guide as guide
from nag.installation.installation import install as install
from nag.installation.nag_guider import NagGuider as NagGuider
from nag.installation.negative_prompt import NegativePrompt as NegativePrompt
from nag.installation.negative_prompt import encode_negative_prompt as encode_negative_prompt
from nag.installation.support import PipelineSupport as PipelineSupport
from nag.installation.support import supported as supported
from nag.params import GuidanceParams as GuidanceParams
from nag.params import NagParams as NagParams
from nag.params import NasaParams as NasaParams
from nag.params import VsfParams as VsfParams
from nag.params import steps_from_noise as steps_from_noise
from nag.pipeline import DenoisingPipeline as DenoisingPipeline
